// The prompt and the settings are in the fragment of the page's address, which a browser never sends: a reload keeps
// them, a copied address shows them to a colleague, and two tabs do not disturb each other. Nothing else is stored.

const LONGEST = 100_000; // characters of a fragment that all browsers take
const SECOND = "b.";

/** The state in the address: {prompt, columns: [{model, changes}]}; empty where there is none or it cannot be read. */
export function readAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const columns = [{}, {}];
  for (const [name, value] of fields) {
    if (name === "prompt" || name === "compare") continue;
    const [column, key] = name.startsWith(SECOND) ? [1, name.slice(SECOND.length)] : [0, name];
    const parsed = parse(value);
    if (parsed !== undefined) columns[column][key] = parsed;
  }
  return { prompt: fields.get("prompt") ?? "", columns: fields.has("compare") ? columns : columns.slice(0, 1) };
}

/** Writes the state into the address; false if the prompt is too long for that and was left out. */
export function writeAddress({ prompt, columns }) {
  const fields = new URLSearchParams();
  if (columns.length > 1) fields.set("compare", "1");
  columns.forEach((values, column) => {
    for (const [key, value] of Object.entries(values)) {
      if (!Number.isNaN(value)) fields.set((column ? SECOND : "") + key, JSON.stringify(value));
    }
  });
  const settings = fields.toString();
  if (prompt) fields.set("prompt", prompt);
  const fits = fields.toString().length <= LONGEST;
  const fragment = fits ? fields.toString() : settings;
  history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
  return fits;
}

function parse(value) {
  try {
    return JSON.parse(value);
  } catch {
    return undefined;
  }
}
