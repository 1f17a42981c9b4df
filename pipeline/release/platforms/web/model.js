/**
 * The model of this package: checked, loaded, called, and held against its golden answers.
 *
 * Runs in browsers and in Node: what differs between them comes as a `host` (index.js, node.js), and what differs
 * between models as RELEASE, which is made from the release's manifest.
 */
import { RELEASE } from "./constants.js";

const { height, width, channels } = RELEASE.input;
const PIXELS = height * width;
const VALUES = PIXELS * channels;
const BATCH = RELEASE.batch ?? 1;
const TAKES_BYTES = RELEASE.input.layout === "uint8_nhwc";
const DIMS = TAKES_BYTES ? [BATCH, height, width, channels] : [BATCH, channels, height, width];

/** What this package expected and did not get. */
export class ReleaseError extends Error {
  constructor(where, expected, got, remedy, options = undefined) {
    super(`${RELEASE.name} ${RELEASE.version}: ${where}: expected ${expected}; got ${got}; ${remedy}`, options);
    this.name = "ReleaseError";
  }
}

/** A loaded model. */
export class Model {
  #ort;
  #session;
  #host;
  #read;
  #file;
  #providers;

  constructor({ ort, session, host, read, file, providers }) {
    this.#ort = ort;
    this.#session = session;
    this.#host = host;
    this.#read = read;
    this.#file = file;
    this.#providers = providers;
  }

  /** Check the model's digest, and only then give its bytes to the runtime. */
  static async open(host, options) {
    const file = fileOf(options.format ?? "onnx");
    const read = readerOf(host, options);
    const bytes = await read(file);
    const ort = options.ort ?? (await importRuntime(host));
    const settings = {
      executionProviders: host.providers,
      intraOpNumThreads: RELEASE.threads,
      ...options.sessionOptions,
    };
    const session = await ort.InferenceSession.create(bytes, settings);
    return new Model({ ort, session, host, read, file, providers: settings.executionProviders });
  }

  /** Return every class with its score, the best first. */
  async classify(pixels) {
    const scores = activate(await this.#infer(this.#tensorOf(pixels)));
    return scores.map((score, index) => ({ label: RELEASE.labels[index], score })).sort((a, b) => b.score - a.score);
  }

  /** Ask the golden inputs, time inferences one by one, and return both as `edgeproof gate` reads them. */
  async selfTest({ runs = 1000, warmup = 10, scope = RELEASE.scope, device = this.#host.device() } = {}) {
    checkCount("runs", runs, 1);
    checkCount("warmup", warmup, 0);
    if (scope !== "model" && scope !== "end_to_end") {
      throw new ReleaseError("scope", '"model" or "end_to_end"', JSON.stringify(scope), "leave it out");
    }
    const images = await this.#goldenImages();
    return {
      schema_version: 1,
      name: RELEASE.name,
      version: RELEASE.version,
      platform: "web",
      device: device.slice(0, 500),
      model_sha256: RELEASE.sha256[this.#file],
      runtime_version: runtimeOf(this.#ort, this.#providers),
      scope,
      golden: await this.#compareGolden(images),
      samples_ns: await this.#time(images[0], { runs, warmup, scope }),
    };
  }

  /** Free what the runtime holds. */
  async close() {
    await this.#session.release();
  }

  /** Return one image as the model takes it; the rest of its batch is zeros. */
  #tensorOf(pixels) {
    checkPixels(pixels);
    const data = TAKES_BYTES ? new Uint8Array(BATCH * VALUES) : new Float32Array(BATCH * VALUES);
    if (TAKES_BYTES) data.set(pixels);
    else normalize(pixels, data);
    return new this.#ort.Tensor(TAKES_BYTES ? "uint8" : "float32", data, DIMS);
  }

  /** Return the outputs of a batch's first image. */
  async #infer(tensor) {
    const { name, classes } = RELEASE.output;
    const outputs = await this.#session.run({ [RELEASE.input.name]: tensor }, [name]);
    return outputs[name].data.subarray(0, classes);
  }

  async #goldenImages() {
    const bytes = await this.#read(RELEASE.golden.images);
    return Array.from({ length: RELEASE.golden.samples }, (_, at) => bytes.subarray(at * VALUES, (at + 1) * VALUES));
  }

  async #compareGolden(images) {
    const { classes } = RELEASE.output;
    const golden = float32s(await this.#read(RELEASE.golden.logits));
    let largest = 0;
    let labelsEqual = true;
    for (const [at, pixels] of images.entries()) {
      const logits = await this.#infer(this.#tensorOf(pixels));
      for (const [index, logit] of logits.entries()) {
        // Math.max keeps a NaN: an answer that is not finite is not lost among those that are.
        largest = Math.max(largest, Math.abs(logit - golden[at * classes + index]));
      }
      labelsEqual &&= logits.indexOf(Math.max(...logits)) === RELEASE.golden.labels[at];
    }
    return {
      samples: images.length,
      largest_difference: Number.isFinite(largest) ? largest : null,
      labels_equal: labelsEqual,
    };
  }

  async #time(pixels, { runs, warmup, scope }) {
    const tensor = this.#tensorOf(pixels);
    const run = scope === "model" ? () => this.#infer(tensor) : () => this.classify(pixels);
    for (let index = 0; index < warmup; index += 1) await run();
    const samples = new Array(runs);
    for (let index = 0; index < runs; index += 1) {
      const start = performance.now();
      await run();
      samples[index] = Math.round((performance.now() - start) * 1e6);
    }
    return samples;
  }
}

/**
 * Return the pixels of an ImageData as classify() takes them: rows from the top, the channels of a pixel side by side.
 * Alpha is dropped; for a model of one channel, colours become grey by ITU-R 601.
 */
export function pixelsOf({ data, width: columns, height: rows }) {
  if (columns !== width || rows !== height) {
    const got = `${columns} x ${rows}`;
    throw new ReleaseError("image", `${width} x ${height} pixels`, got, "draw it in that size first");
  }
  if (channels !== 1 && channels !== 3) {
    throw new ReleaseError("image", "a model of 1 or 3 channels", `one of ${channels}`, "give classify() the bytes");
  }
  const pixels = new Uint8Array(VALUES);
  for (let pixel = 0; pixel < PIXELS; pixel += 1) {
    const [red, green, blue] = data.subarray(4 * pixel, 4 * pixel + 3);
    if (channels === 3) pixels.set([red, green, blue], 3 * pixel);
    else pixels[pixel] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
  }
  return pixels;
}

/** Return whether a self-test's answers are the golden ones: the same classes, outputs within the tolerance. */
export function agrees({ golden }) {
  const { largest_difference: largest, labels_equal: labelsEqual } = golden;
  return labelsEqual && largest !== null && largest <= RELEASE.golden.tolerance;
}

/** Return the bytes at an address, copied into a buffer of their own. */
export async function fetchBytes(name, address, fetch) {
  const response = await fetch(address);
  if (!response.ok) {
    const remedy = "serve the package's folder release/ there, or name another with url";
    throw new ReleaseError(name, `a file at ${address}`, `status ${response.status}`, remedy);
  }
  return new Uint8Array(await response.arrayBuffer());
}

async function importRuntime(host) {
  try {
    return await host.importRuntime();
  } catch (error) {
    const remedy = `npm install ${host.runtime}, or pass another to load({ ort })`;
    throw new ReleaseError("runtime", host.runtime, error.message, remedy, { cause: error });
  }
}

/** Return the file of the model in a format. */
function fileOf(format) {
  const file = RELEASE.models[format];
  if (file !== undefined) return file;
  const formats = Object.keys(RELEASE.models).join(", ");
  throw new ReleaseError("format", formats, JSON.stringify(format), "take one that the package holds");
}

/** Return a function that reads a file of the release, and refuses bytes that are not those that were packed. */
function readerOf(host, options) {
  return async (name) => {
    const bytes = await host.read(name, { fetch: globalThis.fetch, ...options });
    const subtle = await host.subtle();
    if (subtle === undefined) {
      const remedy = "serve the page over https or from localhost";
      throw new ReleaseError(name, "WebCrypto, to check its digest", "none", remedy);
    }
    const hash = new Uint8Array(await subtle.digest("SHA-256", bytes));
    const sha256 = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const expected = RELEASE.sha256[name];
    if (sha256 === expected) return bytes;
    const remedy = "it was changed: install the package again, and verify it";
    throw new ReleaseError(name, `sha256 ${expected}`, sha256, remedy);
  };
}

/** Write p * scale + bias, channels first, rounded to float32 after each step as the chain computed it. */
function normalize(pixels, data) {
  for (let channel = 0; channel < channels; channel += 1) {
    const scale = Math.fround(RELEASE.scale[channel]);
    const bias = Math.fround(RELEASE.bias[channel]);
    for (let pixel = 0; pixel < PIXELS; pixel += 1) {
      data[channel * PIXELS + pixel] = Math.fround(pixels[pixel * channels + channel] * scale) + bias;
    }
  }
}

/** Return the scores of outputs: softmax of them, or what they are. */
function activate(logits) {
  const broken = logits.find((logit) => !Number.isFinite(logit));
  if (broken !== undefined) {
    const remedy = "run selfTest(): the runtime computes it wrongly";
    throw new ReleaseError("answer", "finite numbers", String(broken), remedy);
  }
  if (RELEASE.activation === "none") return Array.from(logits);
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function float32s(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** Say which runtime, which version, and what computes: "onnxruntime-web 1.22.0, wasm". */
function runtimeOf(ort, providers) {
  const versions = Object.entries(ort.env?.versions ?? {});
  const [kind, version] = versions.find(([name]) => name !== "common") ?? ["unknown", "of no version"];
  const names = providers.map((provider) => (typeof provider === "string" ? provider : provider.name));
  return `onnxruntime-${kind} ${version}, ${names.join("+")}`;
}

function checkPixels(pixels) {
  const isBytes = pixels instanceof Uint8Array || pixels instanceof Uint8ClampedArray;
  if (isBytes && pixels.length === VALUES) return;
  const got = isBytes ? `${pixels.length} bytes` : Object.prototype.toString.call(pixels);
  const expected = `a Uint8Array of ${height} x ${width} x ${channels} bytes`;
  throw new ReleaseError("pixels", expected, got, "pixelsOf(imageData) makes them of what a canvas holds");
}

function checkCount(name, value, least) {
  if (Number.isInteger(value) && value >= least) return;
  throw new ReleaseError(name, `a whole number, at least ${least}`, String(value), "change it");
}
