// Which models there are: `models/index.json`, as tools/explorer_models.py writes it.

/** Which terms a model was trained with: MSE alone, with KL, or with the perceptual and adversarial ones too. */
export type Terms = "plain" | "kl" | "all";

export type File = { file: string; bytes: number };

/** A trained model. Its files are described in tools/explorer_models.py, class by class. */
export interface Model {
  name: string;
  size: number; // channels of a latent
  grid: number; // its height and width
  numbers: number; // how many an image becomes: size * grid * grid
  classes: number; // 10 if it is told the digit, else 0
  terms: Terms;
  rate?: number; // of test digits, in nats
  posterior: "diagonal" | "coupled"; // a Gaussian of z, or of what the decoder sees
  mean?: number[]; // of each number over test digits' latents, where they are not near N(0, I)
  std?: number[];
  files: { encoder: File; decoder: File; couplings?: File; prior?: File };
  prior?: { steps: number; guidance: number };
  plane?: File & { about: File };
}

/** The plane of two numbers: its edges, and test digits as [z1, z2, digit]. */
export interface Plane {
  edges: [number, number][];
  dots: [number, number, number][];
}

export interface Catalog {
  judge: File;
  digits: string[]; // ten test digits, 0 to 9, 28 x 28 bytes each, in base64
  models: Model[];
}

export const address = (file: string): string => new URL(`models/${file}`, document.baseURI).href;

export async function getJson<T>(file: string): Promise<T> {
  const answer = await fetch(address(file));
  if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
  return answer.json();
}

/** Kinds of latent, the fewest numbers first: what a column or a choice stands for. */
export function shapes(models: Model[]): Model[][] {
  const found = [...Map.groupBy(models, shapeKey).values()];
  return found.sort((a, b) => a[0].numbers - b[0].numbers || a[0].classes - b[0].classes);
}

/** "2", "98", or "16-told" of a model that is told the digit. */
export const shapeKey = (model: Model): string => `${model.numbers}${model.classes ? "-told" : ""}`;

/** The one that was trained with these terms, or else with the most. */
export function withTerms(same: Model[], terms: Terms): Model {
  const order: Terms[] = [terms, "all", "kl", "plain"];
  return order.flatMap((one) => same.filter((model) => model.terms === one))[0];
}
