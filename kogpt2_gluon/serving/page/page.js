// The page that `kogpt2 serve` shows: a prompt, and one or two columns that continue it.

import { readAddress, writeAddress } from "./address.js";
import { Column, nameOf } from "./column.js";
import { about, ServiceError } from "./service.js";
import { element } from "./settings.js";
import { Shortcuts } from "./shortcuts.js";

const SAVE_MS = 300; // browsers refuse an address that changes too often
const MOST_UNDONE = 50;

class Page {
  constructor() {
    this.parts = Object.fromEntries(
      [...document.querySelectorAll("header [id], main [id]")].map((part) => [part.id, part]),
    );
    this.columns = [];
    this.undone = []; // the texts before each writing: a function for each that brings them back
    this.token = ""; // kept in this page alone: a reload asks again
    this.changed = () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.save(), SAVE_MS);
    };
    this.listen();
    this.restore();
  }

  listen() {
    const { write, stop, undo, compare, prompt, access, token } = this.parts;
    write.addEventListener("click", () => this.write());
    stop.addEventListener("click", () => this.stop());
    undo.addEventListener("click", () => this.undo());
    compare.addEventListener("click", async () => {
      if (this.about || (await this.load())) this.setColumns(this.columns.length === 1 ? 2 : 1);
    });
    prompt.addEventListener("input", this.changed);
    access.addEventListener("submit", (event) => {
      event.preventDefault();
      this.token = token.value.trim();
      access.hidden = true;
      prompt.focus();
      this.load();
    });
    new Shortcuts(document, { write: () => this.write(), escape: () => this.escape() });
    window.addEventListener("hashchange", () => this.restore());
    window.addEventListener("pagehide", () => this.save());
  }

  /** Asks the service what it offers; then the page can write. */
  async load() {
    this.parts.trouble.textContent = "";
    try {
      this.about = await about(this.token);
    } catch (error) {
      this.parts.about.textContent = "";
      if (error.needsToken) this.askForToken(error.message);
      else this.parts.trouble.textContent = `${error.message} Write tries again.`;
      return false;
    }
    const described = (network) => `${nameOf(network, this.about)} · ${sizes(network)}`;
    const lines = this.about.models.map((network) => element("span", "network", described(network)));
    this.parts.about.replaceChildren(...lines);
    if (!this.columns.length) this.setColumns(this.wanted.length, this.wanted);
    return true;
  }

  /** Fails if the service is another than the one that this page knows, as after a restart with another checkpoint. */
  async confirm(signal) {
    const now = await about(this.token, signal);
    if (JSON.stringify(now) === JSON.stringify(this.about)) return;
    throw new ServiceError("The service is another than this page began with. Reload the page: prompt and settings stay.");
  }

  /** Takes the prompt and the settings from the address; before the service has answered, there are no columns yet. */
  restore() {
    const { prompt, columns } = readAddress();
    this.parts.prompt.value = prompt;
    this.wanted = columns;
    if (this.about) this.setColumns(columns.length, columns);
  }

  save() {
    clearTimeout(this.timer);
    if (!this.columns.length) return;
    const columns = this.columns.map(({ state }) => state);
    this.parts["too-long"].hidden = writeAddress({ prompt: this.parts.prompt.value, columns });
  }

  /** Makes one column or two; a second one begins as the first, with the other checkpoint if there is one. */
  setColumns(count, states = null) {
    while (this.columns.length > count) this.drop(this.columns.pop());
    while (this.columns.length < count) {
      const column = new Column(this, this.columns.length);
      const other = this.about.models[this.columns.length] ?? this.about.models[0];
      column.state = this.columns.length ? { ...this.columns[0].state, model: other.model } : {};
      this.columns.push(column);
      this.parts.columns.append(column.element);
    }
    const isPair = count === 2;
    this.columns.forEach((column, place) => {
      if (states) column.state = states[place];
      column.parts.title.textContent = isPair ? `Text ${"AB"[place]}` : "Text";
    });
    this.parts.columns.classList.toggle("pair", isPair);
    this.parts.compare.setAttribute("aria-pressed", String(isPair));
    this.showState();
    this.changed();
  }

  drop(column) {
    column.stop();
    column.element.remove();
    this.undone = this.undone.filter(({ owners }) => !owners.includes(column));
  }

  async write() {
    if (this.isWriting) return;
    if (!(await (this.about ? true : this.load()))) return;
    await this.run(this.columns, this.parts.prompt.value, []);
  }

  /** Lets columns continue `prompt` and `tokens`, and says how that ended. */
  async run(columns, prompt, tokens) {
    if (!columns.every(({ settings }) => settings.areValid())) return;
    // One seed for all columns: what differs between them is then what a person made different.
    const fresh = crypto.getRandomValues(new Uint32Array(1))[0];
    for (const { settings } of columns) if (settings.values.fresh) settings.seedValue = fresh;
    const undo = this.remember(columns);
    this.say("Writing …");
    const running = columns.map((column) => column.write(prompt, tokens, column.settings.values.seed));
    this.showState();
    const outcomes = await Promise.all(running);
    if (!outcomes.some(Boolean)) this.undone = this.undone.filter((each) => each !== undo);
    this.showState();
    this.say(columns.map((column, place) => sentence(column, outcomes[place], this.columns.length)).join(" "));
  }

  replace(column, result) {
    this.remember([column]);
    column.result = result;
    this.showState();
  }

  remember(columns) {
    const before = columns.map((column) => [column, column.result]);
    const back = () => before.forEach(([column, result]) => (column.result = result));
    const step = { owners: columns.slice(), back };
    this.undone = [...this.undone, step].slice(-MOST_UNDONE);
    return step;
  }

  undo() {
    if (this.isWriting || !this.undone.length) return;
    this.undone.pop().back();
    this.showState();
    this.say("Undone.");
  }

  /** Closes what a pointer opened; with nothing open, stops. */
  escape() {
    const open = this.columns.filter(({ text }) => text.isOpen);
    for (const { text } of open) text.close();
    if (!open.length) this.stop();
  }

  async stop() {
    await Promise.all(this.columns.map((column) => column.stop()));
  }

  get isWriting() {
    return this.columns.some((column) => column.isWriting);
  }

  /** A button that does nothing now keeps the focus, so it is not disabled but says so. */
  showState() {
    const { write, stop, undo } = this.parts;
    write.setAttribute("aria-disabled", String(this.isWriting));
    stop.setAttribute("aria-disabled", String(!this.isWriting));
    undo.setAttribute("aria-disabled", String(this.isWriting || !this.undone.length));
  }

  say(text) {
    this.parts.status.textContent = text;
  }

  askForToken(message) {
    this.parts.access.hidden = false;
    this.parts.trouble.textContent = message;
    this.parts.token.focus();
    this.parts.token.select(); // what is typed takes the place of the wrong one
  }
}

function sizes({ parameters, max_length: positions, weights }) {
  return `${parameters.toLocaleString("en")} parameters · ${positions.toLocaleString("en")} positions · ${weights}`;
}

function sentence(column, outcome, count) {
  const how = `${outcome ?? "nothing written"}.`;
  return count > 1 ? `${column.parts.title.textContent}: ${how}` : how.charAt(0).toUpperCase() + how.slice(1);
}

new Page().load();
