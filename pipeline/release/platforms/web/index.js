/** The package in browsers: files by fetch, the runtime from onnxruntime-web. */
import { RELEASE, URLS } from "./constants.js";
import { Model, fetchBytes } from "./model.js";

export { RELEASE } from "./constants.js";
export { Model, ReleaseError, agrees, pixelsOf } from "./model.js";

const HOST = {
  runtime: "onnxruntime-web",
  providers: ["wasm"],
  device: () => `${navigator.userAgent}, ${navigator.hardwareConcurrency} processors`,
  subtle: async () => globalThis.crypto?.subtle,

  async importRuntime() {
    const ort = await import("onnxruntime-web/wasm");
    // Where a page may have threads, the runtime takes several unless told; the verdict is of so many.
    ort.env.wasm.numThreads ??= RELEASE.threads;
    return ort;
  },

  read(name, { url, fetch }) {
    const address = url === undefined ? URLS[name] : new URL(name, new URL(url, globalThis.location?.href));
    return fetchBytes(name, address, fetch);
  },
};

/** Load the model; see index.d.ts. */
export function load(options = {}) {
  return Model.open(HOST, options);
}
