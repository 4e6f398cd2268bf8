// What takes long is made once.

const MOST = 100; // results that are kept: while somebody draws, each move is an image

/** What `make` makes of a key, once; where that fails, anew the next time. */
export function once<T>(make: (key: string) => Promise<T>): (key: string) => Promise<T> {
  const made = new Map<string, Promise<T>>();
  return (key) => {
    const found = made.get(key) ?? make(key);
    if (made.has(key)) return found;
    if (made.size > MOST) made.clear();
    made.set(key, found);
    found.catch(() => made.delete(key));
    return found;
  };
}
