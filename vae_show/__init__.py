"""What people look at: the frames and pictures of a run, and the tables of a notebook."""
