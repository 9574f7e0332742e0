/** Writes `keepline.bundle.js`: the SDK in one file, for pages without a build step. Run by `make bundle`. */

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

export const BUNDLE = new URL("keepline.bundle.js", import.meta.url);

/** The text of the bundle as the sources are now. */
export async function bundle() {
  const { outputFiles } = await build({
    absWorkingDir: fileURLToPath(new URL(".", import.meta.url)),
    entryPoints: ["keepline.js"],
    bundle: true,
    write: false,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    banner: { js: "// Keepline browser SDK, MIT licence. Made from src/ by `make bundle`: change the sources, not this file." },
  });
  return outputFiles[0].text;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(BUNDLE, await bundle());
