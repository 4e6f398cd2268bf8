// Draws, walks and measures, on arrays of numbers.

export const PIXELS = 28 * 28;

/** `n` draws from N(0, 1), the same for the same seed (mulberry32, then Box and Muller 1958). */
export function normals(n: number, seed: number): Float32Array {
  let state = seed | 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length: n }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    return radius * Math.cos(2 * Math.PI * uniform());
  });
}

/** From `a` to `b` along the sphere, where N(0, I) has its mass; `share`: how far, 0 to 1 (Shoemake 1985). */
export function slerp(a: ArrayLike<number>, b: ArrayLike<number>, share: number): number[] {
  const pairs = Array.from(a, (value, i) => [value, b[i]]);
  const dot = (f: (pair: number[]) => number) => pairs.reduce((sum, pair) => sum + f(pair), 0);
  const lengths = Math.sqrt(dot(([x]) => x * x) * dot(([, y]) => y * y));
  const angle = Math.acos(Math.max(-1, Math.min(1, lengths ? dot(([x, y]) => x * y) / lengths : 1)));
  if (Math.sin(angle) < 1e-3) return pairs.map(([x, y]) => x + share * (y - x)); // all but one line
  const [of_a, of_b] = [Math.sin((1 - share) * angle), Math.sin(share * angle)];
  return pairs.map(([x, y]) => (of_a * x + of_b * y) / Math.sin(angle));
}

/** Mean squared error of images in [-1, 1], as in every table of the repository. */
export function mse(x: Float32Array, y: Float32Array): number {
  return x.reduce((sum, value, i) => sum + (value - y[i]) ** 2, 0) / x.length;
}

export function softmax(logits: Float32Array): number[] {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}
