// A text shown token by token: its tints, and the walk along the tokens to the alternatives of each.

import { element } from "./settings.js";

const BYTES = "bytes:"; // how the service spells a part of a character
const TINTS = [0.3, 0.1, 0.03, 0.01]; // a token less likely than one of these gets the next stronger tint
const HOVER_MS = 120; // a pointer that only crosses the text opens nothing
const LEAVE_MS = 250; // time to get from a token to its alternatives

/** A probability from its logarithm, as a person reads it. */
export function percent(logProbability) {
  const value = 100 * Math.exp(logProbability);
  if (value < 0.01) return "under 0.01%";
  return `${value.toFixed(value < 1 ? 2 : 1)}%`;
}

/** A token's text with its spaces, line breaks and other control characters visible. */
export function visible(text) {
  const seen = text.replace(/[\0-\x1f]/g, (control) => String.fromCharCode(0x2400 + control.charCodeAt(0)));
  return seen.replaceAll(" ", "␣") || "(nothing)";
}

function spelled({ id, spelling }, endId) {
  if (id === endId) return "end of the text";
  return spelling.startsWith(BYTES) ? `part of a character (${spelling.slice(BYTES.length)})` : visible(spelling);
}

/** The new text of a column, in its element .tokens, and the panel .alternatives below a token. */
export class TokenText {
  /** `rewrite(place, alternative)` is called when a person chooses another token for a place. */
  constructor(column, rewrite) {
    this.page = column.querySelector(".page");
    this.list = column.querySelector(".tokens");
    this.panel = column.querySelector(".alternatives");
    this.choices = this.panel.querySelector("ol");
    this.rewrite = rewrite;
    this.tokens = [];
    this.waiting = 0;
    this.place = -1; // of the token that the panel is about
    this.pinned = false; // opened by focus, tap or click: a pointer that leaves does not close it
    this.listenToTokens();
    this.listenToPanel();
  }

  clear() {
    this.close();
    this.tokens = [];
    this.waiting = 0; // the first token whose text may still come
    this.list.replaceChildren();
    this.list.removeAttribute("role"); // a list of options without one is none
    this.list.removeAttribute("aria-label");
  }

  /** Adds a token {id, text, spelling, log_probability, alternatives}. */
  add(token, endId) {
    this.append({ ...token, text: "" }, endId);
    this.extend(token.text);
  }

  /** Adds text. It may belong to earlier tokens, too: what could become a stop string comes when it did not. */
  extend(text) {
    const last = this.tokens.length - 1;
    let rest = text;
    while (this.waiting < last && rest) {
      const missing = this.missing(this.waiting);
      const own = missing.startsWith(rest) ? rest : missing;
      if (!rest.startsWith(own)) break; // parts of a character: the last of them gets it
      if (own) this.setText(this.waiting, this.tokens[this.waiting].text + own);
      rest = rest.slice(own.length);
      if (own === missing) this.waiting++;
    }
    if (!rest) return;
    this.setText(last, this.tokens[last].text + rest);
    this.waiting = last;
  }

  /** What of a token's spelling has not come yet. */
  missing(place) {
    const { spelling, text } = this.tokens[place];
    return spelling.startsWith(text) ? spelling.slice(text.length) : "";
  }

  setText(place, text) {
    const span = this.list.children[place];
    this.tokens[place] = { ...this.tokens[place], text };
    span.textContent = text;
    span.classList.remove("part");
    span.classList.toggle("break", text === "\n");
  }

  append(token, endId) {
    const span = element("span", "token part"); // a part, as long as it shows nothing
    const tint = 1 + TINTS.filter((limit) => Math.exp(token.log_probability) < limit).length;
    span.classList.add(`t${tint}`);
    if (token.id === endId) span.classList.replace("part", "end");
    span.setAttribute("role", "option");
    span.setAttribute("aria-selected", "false");
    span.setAttribute("aria-label", `${spelled(token, endId)}, ${percent(token.log_probability)}`);
    span.tabIndex = this.tokens.length ? -1 : 0; // the Tab key stops once at a text; arrows walk in it
    if (!this.tokens.length) {
      this.list.setAttribute("role", "listbox");
      this.list.setAttribute("aria-label", "New text, token by token");
    }
    this.list.append(span);
    this.tokens.push(token);
    this.endId = endId;
  }

  /** The text of the first `count` tokens; of all without a number. */
  joined(count = this.tokens.length) {
    return this.tokens.slice(0, count).map(({ text }) => text).join("");
  }

  get isOpen() {
    return !this.panel.hidden;
  }

  listenToTokens() {
    const { list } = this;
    const placeOf = (event) => Array.prototype.indexOf.call(list.children, event.target.closest(".token"));
    list.addEventListener("focusin", (event) => this.open(placeOf(event), true));
    list.addEventListener("click", (event) => {
      const place = placeOf(event);
      if (place >= 0) this.focus(place);
    });
    list.addEventListener("pointerover", (event) => {
      const place = placeOf(event);
      if (event.pointerType !== "mouse" || place < 0 || this.pinned) return;
      this.later(() => this.open(place, false), HOVER_MS);
    });
    list.addEventListener("pointerout", () => this.leave());
    list.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (event.key in steps) this.focus(this.place + steps[event.key]);
      else if (event.key === "ArrowDown" || event.key === "Enter" || event.key === " ") this.focusChoice(0);
      else if (event.key === "Escape" && this.isOpen) this.close();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  listenToPanel() {
    const { panel } = this;
    panel.addEventListener("pointerenter", () => clearTimeout(this.timer));
    panel.addEventListener("pointerleave", () => this.leave());
    panel.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.choose(button);
    });
    panel.addEventListener("keydown", (event) => {
      const place = this.buttons.indexOf(event.target);
      if (event.key === "ArrowDown") this.focusChoice(place + 1);
      else if (event.key === "ArrowUp" && place > 0) this.focusChoice(place - 1);
      else if (event.key === "ArrowUp") this.focus(this.place);
      else if (event.key === "ArrowLeft") this.focus(this.place - 1);
      else if (event.key === "ArrowRight") this.focus(this.place + 1);
      else if (event.key === "Escape") {
        this.focus(this.place);
        this.close();
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.page.addEventListener("focusout", ({ relatedTarget }) => {
      if (!this.list.contains(relatedTarget) && !panel.contains(relatedTarget)) this.close();
    });
  }

  get buttons() {
    return [...this.choices.querySelectorAll("button")];
  }

  later(action, milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(action, milliseconds);
  }

  leave() {
    clearTimeout(this.timer);
    if (!this.pinned) this.later(() => this.close(), LEAVE_MS);
  }

  focus(place) {
    const last = this.tokens.length - 1;
    if (last >= 0) this.list.children[Math.min(Math.max(place, 0), last)].focus();
  }

  focusChoice(place) {
    this.buttons[Math.min(place, this.buttons.length - 1)]?.focus();
  }

  close() {
    clearTimeout(this.timer);
    this.panel.hidden = true;
    this.pinned = false;
    this.list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  }

  open(place, pinned) {
    clearTimeout(this.timer);
    if (place < 0) return;
    const [span, token] = [this.list.children[place], this.tokens[place]];
    this.list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    span.setAttribute("aria-selected", "true");
    if (pinned) {
      for (const other of this.list.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
      span.tabIndex = 0;
    }
    this.place = place;
    this.pinned = pinned;
    this.fill(token);
    this.moveTo(span);
  }

  fill(token) {
    const name = spelled(token, this.endId);
    this.panel.setAttribute("aria-label", `What else could be in the place of ${name}`);
    this.panel.querySelector(".chosen b").textContent = name;
    this.panel.querySelector(".chosen span").textContent = percent(token.log_probability);
    const others = token.alternatives.map(([spelling, logProbability, id]) => ({
      id, spelling, log_probability: logProbability,
    }));
    if (!others.some(({ id }) => id === token.id)) others.push(token);
    this.choices.replaceChildren(...others.map((other) => this.choice(other, token)));
  }

  choice(other, token) {
    const item = element("li");
    const button = element("button");
    button.type = "button";
    button.dataset.id = other.id;
    if (other.id === token.id) button.setAttribute("aria-current", "true");
    const bar = element("span", "bar");
    bar.style.width = `${100 * Math.exp(other.log_probability)}%`;
    const name = element("span", "name", spelled(other, this.endId));
    name.lang = "ko";
    button.tabIndex = -1; // the arrows walk here, too
    button.append(bar, name, " ", element("span", "percent", percent(other.log_probability)));
    button.alternative = other;
    item.append(button);
    return item;
  }

  choose(button) {
    const { place } = this;
    this.close();
    this.rewrite(place, button.alternative);
  }

  /** Puts the panel right at the token, so that a pointer gets there across nothing else, below it if there is room. */
  moveTo(span) {
    const { page, panel } = this;
    panel.hidden = false;
    const rows = span.getClientRects(); // a token may be broken over two lines
    const row = rows[rows.length - 1] ?? span.getBoundingClientRect();
    const outer = page.getBoundingClientRect();
    const left = Math.min(row.left - outer.left, outer.width - panel.offsetWidth);
    const isBelow = row.bottom + panel.offsetHeight <= innerHeight || row.top < panel.offsetHeight;
    panel.style.left = `${Math.max(left, 0)}px`;
    panel.style.top = `${(isBelow ? row.bottom : row.top - panel.offsetHeight) - outer.top}px`;
  }
}
