// A text's request as a command that a shell runs: with the command line of this package, and with curl.

import { SEED, SETTINGS, STOP } from "./settings.js";

/** `text` as one word of a POSIX shell. Between single quotes nothing is special, line breaks neither. */
export function quoted(text) {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The tuned prompt of a request, as the service described it; undefined if it has none. */
export function tunedOf(request, model) {
  return model.tuned.find(({ name }) => name === request.prompt_tuning);
}

/** `kogpt2 generate` with what the text of `request` was written with. */
export function commandLine(request, model) {
  const words = ["kogpt2", "generate"];
  for (const { key, flag, off } of [...SETTINGS, SEED]) {
    if (request[key] !== undefined && request[key] !== off) words.push(flag, String(request[key]));
  }
  for (const stop of request.stop ?? []) words.push(STOP.flag, quoted(stop));
  for (const [flag, value] of Object.entries(model.options)) words.push(flag, quoted(value));
  const tuned = tunedOf(request, model);
  if (tuned) words.push("--tuned-prompt", quoted(tuned.folder));
  if (request.prompt === "-") words.unshift("printf", "%s", "-", "|"); // a prompt - is standard input
  else if (request.prompt.startsWith("-")) words.push("--"); // or it would be taken for an option
  return [...words, quoted(model.checkpoint), quoted(request.prompt)].join(" ");
}

/** The request with curl. The token is left to a variable of the shell: commands end up in histories and chats. */
export function curlCommand(request, needsToken) {
  const words = ["curl", "--no-buffer", quoted(new URL("generate", document.baseURI).href)];
  words.push("--header", "'Content-Type: application/json'");
  if (needsToken) words.push("--header", '"Authorization: Bearer $KOGPT2_TOKEN"');
  words.push("--data-binary", quoted(JSON.stringify(request)));
  return words.join(" ");
}
