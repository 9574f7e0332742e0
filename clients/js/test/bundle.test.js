import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import * as bundled from "../keepline.bundle.js";
import * as modules from "../keepline.js";

const esbuild = await import("esbuild").catch(() => null);
const skip = esbuild ? false : "esbuild is missing: npm ci";

test("the bundle is what its sources make", { skip }, async () => {
  const { BUNDLE, bundle } = await import("../bundle.js");
  assert.equal(await readFile(BUNDLE, "utf8"), await bundle(), "out of date: make bundle");
});

test("the bundle exports what the modules export", () => {
  assert.deepEqual(Object.keys(bundled).sort(), ["Call", "Keepline", "KeeplineError"]);
  assert.deepEqual(Object.keys(modules).sort(), Object.keys(bundled).sort());
});
