// A table that is wider than the screen scrolls; the keyboard gets there, too.
function reachTables() {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0;
}
reachTables();
new MutationObserver(reachTables).observe(document.body, { childList: true, subtree: true });
