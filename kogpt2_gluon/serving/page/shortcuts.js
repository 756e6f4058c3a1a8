// The keys of the whole page, and input methods, which need the same keys for themselves.

/** Calls `write` for Ctrl+Enter or Cmd+Enter, and `escape` for Escape. */
export class Shortcuts {
  constructor(target, { write, escape }) {
    this.actions = { write, escape };
    this.isComposing = false;
    this.isWanted = false; // Ctrl+Enter came while the last syllable was being composed
    target.addEventListener("compositionstart", () => (this.isComposing = true));
    target.addEventListener("compositionend", () => this.endComposition());
    target.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    // While an input method composes, a browser may call every key "Process"; the code says which one it is.
    const isEnter = event.key === "Enter" || /^(Numpad)?Enter$/.test(event.code);
    const isShortcut = isEnter && (event.ctrlKey || event.metaKey);
    const isComposing = this.isComposing || event.isComposing;
    this.isWanted = isShortcut && isComposing;
    if (isShortcut) {
      event.preventDefault();
      if (!isComposing && !event.repeat) this.actions.write();
    } else if (event.key === "Escape" && !isComposing && event.keyCode !== 229 && !event.defaultPrevented) {
      this.actions.escape(); // in a composition, or as its last key (229 in Safari), Escape drops what was composed
    }
  }

  /** Korean input methods compose the last syllable until a key ends it: the text is written once that is done. */
  endComposition() {
    this.isComposing = false;
    if (!this.isWanted) return;
    this.isWanted = false;
    setTimeout(this.actions.write); // the syllable gets into the prompt after this event
  }
}
