// Puts our page into Locust's own RL tab. Locust draws the tab, empty, and says in the address which tab is chosen.
"use strict";

(() => {
  const KEY = "rl";
  let frame = null;

  function chosen() {
    if (new URL(window.location.href).searchParams.get("tab") !== KEY) return null;
    const tab = document.querySelector('[role="tab"][aria-selected="true"]');
    return tab !== null && tab.textContent === "RL" ? tab : null;
  }

  function look() {
    const tab = chosen();
    if (tab === null) {
      if (frame !== null) frame.remove();
      frame = null;
    } else if (frame === null || !frame.isConnected) {
      frame = make();
      (tab.closest(".MuiContainer-root") || document.querySelector("main")).append(frame);
    }
  }

  function make() {
    const made = document.createElement("iframe");
    made.id = "rl-frame";
    made.title = "RL";
    made.src = "./rl/";
    made.style.cssText = "display: block; width: 100%; height: 70vh; border: 0; color-scheme: normal";
    made.addEventListener("load", () => {
      const page = made.contentDocument;
      if (page === null || page.body === null) return;
      const fit = () => { made.style.height = `${Math.ceil(page.body.getBoundingClientRect().height)}px`; };
      new made.contentWindow.ResizeObserver(fit).observe(page.body);
    });
    return made;
  }

  const watched = { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-selected"] };
  new MutationObserver(look).observe(document.body, watched);
  window.addEventListener("popstate", look);
  look();
})();
