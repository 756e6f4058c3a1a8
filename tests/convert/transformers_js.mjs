// Encodes lines with transformers.js: `node transformers_js.mjs LIBRARY FOLDER NAME ...` reads {NAME: lines} as JSON and
// writes {NAME: {ids, texts}}, with FOLDER/NAME as the tokenizer of each.
import { readFileSync } from "node:fs";

const [library, folder, ...names] = process.argv.slice(2);
const { AutoTokenizer, env } = await import(library);
env.allowRemoteModels = false;
env.localModelPath = folder;
const lines = JSON.parse(readFileSync(0, "utf8"));
const results = {};
for (const name of names) {
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const ids = lines[name].map((line) => tokenizer.encode(line, { add_special_tokens: false }));
  const texts = ids.map((some) => (some.length ? tokenizer.decode(some) : ""));
  const prompt = tokenizer.encode("영화");
  results[name] = { ids, texts, prompt };
}
console.log(JSON.stringify(results));
