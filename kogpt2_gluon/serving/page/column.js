// A column of the page: a checkpoint, settings, and the text that they wrote.

import { commandLine, curlCommand, tunedOf } from "./commands.js";
import { generate, ServiceError } from "./service.js";
import { Settings } from "./settings.js";
import { TokenText } from "./tokens.js";

const ALTERNATIVES = 8; // of each token, if the service lists so many
const SHELL = "for a POSIX shell"; // Windows' quotes otherwise
const NARROW = "(max-width: 760px)"; // page.css stacks everything there, so the settings begin closed
const EMPTY = { prompt: "", tokens: [], notes: [], outcome: "", request: null, ended: false };

export class Column {
  /** `app` is the page: its about, its token, and what it does for all columns. */
  constructor(app, number) {
    this.app = app;
    this.element = document.querySelector("#column").content.cloneNode(true).firstElementChild;
    const part = (selector) => this.element.querySelector(selector);
    this.parts = {
      title: part("h2"), select: part(".checkpoint"), tuned: part(".tuned"), text: part(".text"), prompt: part(".prompt"),
      nothing: part(".nothing"),
      outcome: part(".outcome"), notes: part(".notes"), trouble: part(".trouble"), after: part(".after"),
      command: part(".command"), again: part("[data-do=continue]"),
    };
    this.parts.title.id = `title-${number}`;
    this.element.setAttribute("aria-labelledby", this.parts.title.id);
    for (const each of app.about.models) this.parts.select.append(new Option(nameOf(each, app.about), each.model));
    this.parts.select.closest(".of").hidden = app.about.models.length < 2;
    this.parts.select.addEventListener("change", () => {
      this.offerTuned(this.parts.tuned.value);
      app.changed();
    });
    this.parts.tuned.addEventListener("change", app.changed);
    this.offerTuned("");
    this.settings = new Settings(part(".settings"), app.about.defaults, app.about.limits, app.changed);
    part(".settings").open = !matchMedia(NARROW).matches;
    this.text = new TokenText(this.element, (place, alternative) => this.rewrite(place, alternative));
    this.element.addEventListener("click", ({ target }) => this.act(target.closest("[data-do]")?.dataset.do));
    this.result = EMPTY;
  }

  get model() {
    return this.app.about.models.find(({ model }) => model === this.parts.select.value);
  }

  get isWriting() {
    return Boolean(this.writing);
  }

  /** Lists the tuned prompts of the chosen checkpoint, which fit no other one, and chooses `name` if it is among them. */
  offerTuned(name) {
    const { tuned } = this.model;
    this.parts.tuned.replaceChildren(new Option("none", ""), ...tuned.map((each) => new Option(each.name, each.name)));
    this.parts.tuned.value = tuned.some((each) => each.name === name) ? name : "";
    this.parts.tuned.closest(".of").hidden = !tuned.length;
  }

  /** Checkpoint, tuned prompt, and the settings that are not the defaults, for the address; and back. */
  get state() {
    const state = { ...this.settings.changes };
    if (this.model !== this.app.about.models[0]) state.model = this.model.model;
    if (this.parts.tuned.value) state.prompt_tuning = this.parts.tuned.value;
    return state;
  }

  set state({ model, prompt_tuning: tuned, ...changes }) {
    const isKnown = this.app.about.models.some((each) => each.model === model);
    this.parts.select.value = isKnown ? model : this.app.about.models[0].model;
    this.offerTuned(tuned);
    this.settings.values = changes;
  }

  get result() {
    return { ...this.shown, tokens: this.text.tokens.slice() };
  }

  /** Shows a text as it was before; what undoes a writing. */
  set result(result) {
    this.shown = { ...result, tokens: [] };
    this.text.clear();
    for (const token of result.tokens) this.text.add(token, this.model.end_id);
    this.parts.prompt.textContent = result.prompt;
    this.parts.notes.replaceChildren(...result.notes.map(noteItem));
    this.parts.trouble.textContent = "";
    this.parts.command.hidden = true;
    this.showOutcome(result.outcome);
  }

  showOutcome(outcome) {
    const { parts, shown } = this;
    const isEmpty = !shown.request && !this.isWriting;
    shown.outcome = outcome;
    parts.outcome.textContent = outcome;
    parts.nothing.hidden = !isEmpty;
    parts.text.hidden = isEmpty;
    parts.after.hidden = isEmpty || this.isWriting;
    parts.again.setAttribute("aria-disabled", String(shown.ended));
  }

  /** Ends what is being written; resolves when nothing more is added. */
  async stop() {
    this.controller?.abort();
    await this.writing;
  }

  /** Continues `prompt` and `tokens`, which it has already; resolves to how it ended, or null if it never began. */
  async write(prompt, tokens, seed) {
    const request = this.request(prompt, tokens, seed);
    const stopped = this.stop();
    this.controller = new AbortController();
    const { signal } = this.controller;
    const writing = stopped.then(() => this.follow(prompt, tokens, request, signal));
    this.writing = writing;
    try {
      return await writing;
    } finally {
      if (this.writing === writing) this.writing = null; // unless another text took its place
      this.element.toggleAttribute("aria-busy", this.isWriting);
      this.showOutcome(this.shown.outcome);
    }
  }

  request(prompt, tokens, seed) {
    const { fresh, ...settings } = this.settings.values;
    const alternatives = Math.min(ALTERNATIVES, this.app.about.limits.alternatives);
    const request = { prompt, ...settings, seed, alternatives, stream: true };
    if (this.app.about.models.length > 1) request.model = this.model.model;
    if (this.parts.tuned.value) request.prompt_tuning = this.parts.tuned.value;
    if (tokens.length) request.written = tokens.map(({ id }) => id);
    return request;
  }

  async follow(prompt, tokens, request, signal) {
    this.element.setAttribute("aria-busy", "true");
    this.parts.trouble.textContent = "";
    let outcome = null;
    const began = performance.now();
    try {
      await this.app.confirm(signal);
      for await (const [name, data] of generate(request, this.app.token, signal)) {
        if (name === "start") this.begin(prompt, withText(tokens, data.text), data.notes, request);
        else if (name === "token") this.grow(data);
        else if (name === "end") outcome = this.end(data, (performance.now() - began) / 1000);
      }
    } catch (error) {
      outcome = this.fail(error, request);
    }
    return outcome;
  }

  begin(prompt, tokens, notes, request) {
    this.result = { ...EMPTY, prompt, tokens, notes, request };
    this.showOutcome("writing …");
  }

  grow(token) {
    this.text.add(token, this.model.end_id);
    this.parts.outcome.textContent = `writing … ${counted(this.text.tokens.length)}`;
  }

  end({ text, finish_reason: reason, tokens_read: read, tokens_written: written }, seconds) {
    const { tokens } = this.text;
    const taken = tunedOf(this.shown.request, this.model)?.positions ?? 0;
    const isFull = read + written >= this.model.max_length - taken;
    const why = {
      stop: tokens.at(-1)?.id === this.model.end_id ? "ended by itself" : "ended at a stop string",
      length: isFull ? "the network has no position left" : "as many as asked for",
      time: "the service's time for a text was over",
      shutdown: "the service had to stop",
    }[reason];
    if (text) this.text.extend(text);
    this.shown.ended = tokens.at(-1)?.id === this.model.end_id || isFull;
    const speed = written > 1 ? ` · ${(written / seconds).toFixed(written < 10 * seconds ? 1 : 0)} a second` : "";
    this.showOutcome(`${counted(written)}, ${why}${speed}`);
    return `${counted(written)}, ${why}`;
  }

  /** Says what went wrong; the text so far stays. */
  fail(error, request) {
    const hasBegun = this.shown.request === request;
    if (hasBegun) this.showOutcome(`${counted(this.text.tokens.length)}, stopped`);
    if (error.name === "AbortError") return hasBegun ? "stopped" : null;
    if (!(error instanceof ServiceError)) throw error; // a fault of this page: the browser's console has it
    if (error.needsToken) this.app.askForToken(error.message);
    else {
      this.parts.trouble.textContent = error.message;
      this.parts.trouble.scrollIntoView({ block: "nearest" }); // a long prompt may have moved it out of the window
    }
    return hasBegun ? "broken off" : null;
  }

  rewrite(place, alternative) {
    const tokens = this.text.tokens.slice(0, place);
    const token = { ...this.text.tokens[place], ...alternative, text: "" };
    if (alternative.id === this.model.end_id) {
      this.app.replace(this, { ...this.result, tokens: [...tokens, token], outcome: "ended by you", ended: true });
    } else this.app.run([this], this.shown.prompt, [...tokens, token]);
  }

  act(name) {
    const { request, prompt } = this.shown;
    if (!request || this.isWriting) return;
    if (name === "continue" && !this.shown.ended) this.app.run([this], prompt, this.text.tokens.slice());
    else if (name === "text") this.copy("Text", prompt + this.text.joined());
    else if (name === "command") this.copy(`Command line ${SHELL}`, commandLine(this.requestInText(), this.model));
    else if (name === "curl") this.copy(`curl command ${SHELL}`, curlCommand(request, Boolean(this.app.token)));
  }

  /** The request for a command line, which takes no ids: what the text had already is in the prompt. */
  requestInText() {
    const { request } = this.shown;
    return { ...request, prompt: request.prompt + this.text.joined(request.written?.length ?? 0) };
  }

  /** Shows what it copies. Browsers have no clipboard for pages without https that come from another machine. */
  async copy(what, text) {
    const { command } = this.parts;
    const shown = command.querySelector("pre");
    shown.textContent = text;
    command.hidden = false;
    let said = `${what} copied`;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(shown);
      if (!document.execCommand("copy")) said = `${what}: the browser lets no page copy here; it is selected, copy it`;
    }
    command.querySelector("figcaption").textContent = said;
    this.app.say(`${said}.`);
  }
}

/** Gives tokens their texts: `text` is what all of them add to the prompt, which only the last one may not know yet. */
function withText(tokens, text) {
  let rest = text;
  return tokens.map((token, place) => {
    const isLast = place === tokens.length - 1;
    const own = isLast ? rest : rest.slice(0, commonLength(rest, token.text));
    rest = rest.slice(own.length);
    return { ...token, text: own };
  });
}

function commonLength(one, other) {
  let length = 0;
  while (length < other.length && one[length] === other[length]) length++;
  return length;
}

/** The name of a network; two of one recipe and step differ by their paths only. */
export function nameOf(network, { models }) {
  return models.filter(({ name }) => name === network.name).length > 1 ? network.checkpoint : network.name;
}

function counted(tokens) {
  return tokens === 1 ? "1 token" : `${tokens.toLocaleString("en")} tokens`;
}

function noteItem(note) {
  const item = document.createElement("li");
  item.textContent = note.charAt(0).toUpperCase() + note.slice(1);
  return item;
}
