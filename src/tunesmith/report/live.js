// Fetches this address again and replaces the parts that differ. What is fetched is markup that the server has
// escaped; scripts in it would not run, and the page's policy allows none but this one.
"use strict";
(() => {
  const EVERY = 2000, PATIENCE = 10000;
  let answered = Date.now(), clock = "";
  const say = (text) => { document.getElementById("connection").textContent = text; };

  function replace(part) {
    const old = document.getElementById(part.id);
    if (!old || old.innerHTML === part.innerHTML) return;
    const scroller = old.querySelector(".log");
    const atEnd = !scroller || scroller.scrollTop + scroller.clientHeight >= scroller.scrollHeight - 8;
    const before = scroller ? scroller.scrollTop : 0;
    old.replaceWith(document.adoptNode(part));
    const now = part.querySelector(".log");
    if (now) now.scrollTop = atEnd ? now.scrollHeight : before;
  }

  function show(next) {
    if (!next.querySelector("[data-live]")) {
      document.replaceChild(document.adoptNode(next.documentElement), document.documentElement);
      return false;
    }
    document.title = next.title;
    next.querySelectorAll("[data-live]").forEach(replace);
    return !document.querySelector("[data-ended]");
  }

  async function update() {
    let more = true;
    try {
      const reply = await fetch(location.href, { cache: "no-store", redirect: "error" });
      if (!reply.ok) throw new Error(String(reply.status));
      more = show(new DOMParser().parseFromString(await reply.text(), "text/html"));
      answered = Date.now();
      clock = new Date().toLocaleTimeString();
      if (more) say("Updated " + clock);
      else if (document.getElementById("connection")) say("Ended; last updated " + clock);
    } catch {
      if (Date.now() - answered > PATIENCE) say("No answer since " + clock +
        ": the job has ended, or the connection to it. This is the last that was seen.");
    }
    if (more) setTimeout(update, EVERY);
  }

  clock = new Date().toLocaleTimeString();
  const log = document.querySelector(".log");
  if (log) log.scrollTop = log.scrollHeight;
  if (!document.querySelector("[data-ended]")) setTimeout(update, EVERY);
})();
