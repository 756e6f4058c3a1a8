// The settings of a text: their sliders and numbers, and the values that these hold.

// `key` is the service's name, `flag` the command line's; at `off` a setting changes nothing. `low` and `high` are the
// ends of the slider; a number may lie outside them, within `min` and `max`.
export const SETTINGS = [
  { key: "max_new_tokens", flag: "--max-new-tokens", label: "Most new tokens", low: 1, high: 400, step: 1, min: 1 },
  { key: "min_new_tokens", flag: "--min-new-tokens", label: "Fewest new tokens", off: 0, low: 0, high: 400, step: 1,
    min: 0 },
  { key: "temperature", flag: "--temperature", label: "Temperature", hint: "0: greedy",
    low: 0, high: 2, step: 0.05, min: 0 },
  { key: "top_k", flag: "--top-k", label: "Top-k", hint: "0: off", off: 0, low: 0, high: 200, step: 1, min: 0 },
  { key: "top_p", flag: "--top-p", label: "Top-p", hint: "1: off", off: 1, low: 0.01, high: 1, step: 0.01, min: 0,
    max: 1 },
  { key: "min_p", flag: "--min-p", label: "Min-p", hint: "0: off", off: 0, low: 0, high: 0.5, step: 0.01, min: 0,
    max: 1 },
  { key: "typical_p", flag: "--typical-p", label: "Typical", hint: "1: off", off: 1, low: 0.01, high: 1, step: 0.01,
    min: 0, max: 1 },
  { key: "repetition_penalty", flag: "--repetition-penalty", label: "Repetition penalty", hint: "1: off", off: 1,
    low: 1, high: 2, step: 0.01, min: 0 },
  { key: "no_repeat_ngram_size", flag: "--no-repeat-ngram-size", label: "No n-gram twice, n", hint: "0: off", off: 0,
    low: 0, high: 10, step: 1, min: 0 },
];
export const SEED = { key: "seed", flag: "--seed", label: "Seed", step: 1, min: 0, max: Number.MAX_SAFE_INTEGER };
export const STOP = { key: "stop", flag: "--stop", label: "Stop strings" };

let ids = 0;

/** One column's settings. `changed` is called whenever a value changes. */
export class Settings {
  constructor(details, defaults, limits, changed) {
    this.details = details;
    this.defaults = { ...defaults, seed: defaults.seed ?? 0, fresh: true };
    this.changed = () => {
      this.summarize();
      changed();
    };
    this.fields = new Map();
    const list = details.querySelector(".list");
    for (const setting of SETTINGS) {
      if (!(setting.key in defaults)) continue;
      const max = limits[setting.key] ?? setting.max ?? Infinity;
      list.append(this.slider({ ...setting, max, high: Math.min(setting.high, max) }));
    }
    list.append(this.seed(), this.stop());
    this.values = {};
  }

  slider(setting) {
    const row = element("div", "setting");
    const slider = element("input");
    Object.assign(slider, { type: "range", min: setting.low, max: setting.high, step: setting.step, id: `s${ids++}` });
    const number = this.number(setting);
    number.setAttribute("aria-label", `${setting.label}, as a number`);
    const label = element("label", "", setting.label);
    label.htmlFor = slider.id;
    if (setting.hint) label.append(" ", element("span", "hint", setting.hint));
    slider.addEventListener("input", () => {
      number.value = slider.value;
      this.changed();
    });
    number.addEventListener("input", () => {
      slider.value = number.value;
      this.changed();
    });
    row.append(label, number, slider);
    this.fields.set(setting.key, { number, slider });
    return row;
  }

  number(setting) {
    const number = element("input");
    Object.assign(number, { type: "number", required: true, min: setting.min, max: setting.max });
    number.step = setting.step === 1 ? 1 : "any";
    number.inputMode = setting.step === 1 ? "numeric" : "decimal";
    return number;
  }

  seed() {
    const row = element("div", "setting seed");
    const number = this.number(SEED);
    number.id = `s${ids++}`;
    const label = element("label", "", SEED.label);
    label.htmlFor = number.id;
    const fresh = element("label", "check");
    const box = element("input");
    box.type = "checkbox";
    fresh.append(box, " a new one for each text");
    number.addEventListener("input", () => {
      box.checked = false; // who types a seed wants this one
      this.changed();
    });
    box.addEventListener("change", this.changed);
    row.append(label, number, fresh);
    this.fields.set(SEED.key, { number, box });
    return row;
  }

  stop() {
    const row = element("div", "setting stop");
    const area = element("textarea");
    Object.assign(area, { rows: 2, id: `s${ids++}`, spellcheck: false, lang: "ko" });
    const label = element("label", "", STOP.label);
    label.htmlFor = area.id;
    label.append(" ", element("span", "hint", "one a line; \\n is a line break"));
    area.addEventListener("input", this.changed);
    row.append(label, area);
    this.fields.set(STOP.key, { area });
    return row;
  }

  /** Everything as the service takes it; `fresh` beside it says that each text gets a seed of its own. */
  get values() {
    const values = {};
    for (const [key, { number }] of this.fields) if (number) values[key] = number.valueAsNumber;
    values.stop = stopStrings(this.fields.get("stop").area.value);
    values.fresh = this.fields.get("seed").box.checked;
    return values;
  }

  set values(given) {
    const values = { ...this.defaults, ...given };
    for (const [key, { number, slider }] of this.fields) {
      if (number) number.value = values[key];
      if (slider) slider.value = values[key];
    }
    this.fields.get("stop").area.value = (values.stop ?? []).map(escaped).join("\n");
    this.fields.get("seed").box.checked = values.fresh;
    this.summarize();
  }

  set seedValue(seed) {
    this.fields.get("seed").number.value = seed;
    this.changed();
  }

  /** The values that are not the service's defaults. */
  get changes() {
    const values = this.values;
    const differ = ([key, value]) => JSON.stringify(value) !== JSON.stringify(this.defaults[key] ?? []);
    return Object.fromEntries(Object.entries(values).filter(differ));
  }

  /** Shows the browser's own words at the first value that is out of bounds; false if there is one. */
  areValid() {
    for (const { number } of this.fields.values()) {
      if (!number || number.checkValidity()) continue;
      this.details.open = true; // or the browser has no place for its words
      number.reportValidity();
      return false;
    }
    return true;
  }

  summarize() {
    const values = this.values;
    const parts = [...SETTINGS, SEED]
      .filter(({ key, off }) => this.fields.has(key) && values[key] !== off)
      .map(({ key, label }) => `${label.toLowerCase()} ${values[key]}`);
    this.details.querySelector("summary .hint").textContent = parts.join(" · ");
  }
}

/** The stop strings that a person typed, one a line; \n, \t and \\ mean what they mean in most languages. */
function stopStrings(text) {
  const meant = { n: "\n", t: "\t", "\\": "\\" };
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.replace(/\\([nt\\])/g, (_, letter) => meant[letter]));
}

function escaped(stop) {
  return stop.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t");
}

export function element(name, style = "", text = "") {
  const made = document.createElement(name);
  if (style) made.className = style;
  if (text) made.textContent = text;
  return made;
}
