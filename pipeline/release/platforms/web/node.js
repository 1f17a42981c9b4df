/** The package in Node: files from the disk, the runtime from onnxruntime-node. */
import { webcrypto } from "node:crypto";
import { readFile } from "node:fs/promises";
import os from "node:os";

import { URLS } from "./constants.js";
import { Model, fetchBytes } from "./model.js";

export { RELEASE } from "./constants.js";
export { Model, ReleaseError, agrees, pixelsOf } from "./model.js";

const HOST = {
  runtime: "onnxruntime-node",
  providers: ["cpu"],
  subtle: async () => webcrypto.subtle, // no global in Node 18

  device() {
    const processor = os.cpus()[0]?.model.trim() || "unknown processor";
    return `${processor}, ${os.type()} ${os.release()} ${os.arch()}, Node ${process.versions.node}`;
  },

  async importRuntime() {
    const ort = await import("onnxruntime-node");
    return ort.InferenceSession === undefined ? ort.default : ort; // it is CommonJS
  },

  async read(name, { url, fetch }) {
    const address = url === undefined ? URLS[name] : new URL(name, url);
    // Copied: Node keeps small files in one buffer, whose bytes are not this file's alone.
    return address.protocol === "file:" ? new Uint8Array(await readFile(address)) : fetchBytes(name, address, fetch);
  },
};

/** Load the model; see index.d.ts. */
export function load(options = {}) {
  return Model.open(HOST, options);
}
