#!/usr/bin/env node
/**
 * Print what selfTest() returns, as `edgeproof gate --profile FILE` takes it.
 * Exits with 1 where the golden answers differ or the model is refused, with 2 where the options are wrong.
 */
import { parseArgs } from "node:util";

import { RELEASE, ReleaseError, agrees, load } from "./node.js";

try {
  const { values } = parseArgs({
    options: {
      runs: { type: "string", default: "1000" },
      warmup: { type: "string", default: "10" },
      device: { type: "string" },
    },
  });
  const model = await load();
  const { runs, warmup, device } = values;
  const report = await model.selfTest({ runs: Number(runs), warmup: Number(warmup), device });
  console.log(JSON.stringify(report));
  if (!agrees(report)) {
    const { largest_difference: largest, labels_equal: labelsEqual } = report.golden;
    const got = labelsEqual ? `a difference of ${largest}` : "other classes";
    end(1, `${RELEASE.name}: golden answers: expected outputs within ${RELEASE.golden.tolerance}; got ${got}`);
  }
} catch (error) {
  if (error instanceof ReleaseError) end(1, error.message);
  else if (error.code?.startsWith("ERR_PARSE_ARGS")) end(2, error.message);
  else throw error;
}

function end(code, message) {
  console.error(message);
  process.exitCode = code;
}
