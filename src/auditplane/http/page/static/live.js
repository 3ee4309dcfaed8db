// @ts-check
// New events: announced, and shown when live mode is on. They come as server-sent events, which resume by themselves.

import { lose, regain } from "./connection.js";
import { say } from "./copying.js";
import { remember, remembered, showTimes } from "./preferences.js";

const MANY = 10_000;
const WAITING_MAX = 200;
const LOST_MS = 3000;

export function enableLive() {
  const empty = /** @type {HTMLElement | null} */ (document.querySelector(".empty[data-follow]"));
  if (empty?.dataset.follow) follow(empty.dataset.follow, () => location.reload());
  const table = /** @type {HTMLTableElement | null} */ (document.getElementById("events"));
  const news = /** @type {HTMLButtonElement | null} */ (document.getElementById("news"));
  const liveSwitch = /** @type {HTMLButtonElement | null} */ (document.getElementById("live-switch"));
  const follows = table?.dataset.follow;
  if (!follows || !news || !liveSwitch) return;

  let live = remembered("live", "off") === "on";
  let count = 0;
  /** @type {HTMLTableRowElement[]} */
  let waiting = [];

  const announce = () => {
    news.hidden = count === 0;
    news.textContent = count < MANY ? `${count.toLocaleString("en")} new` : "Many new";
    news.title = `Show ${count === 1 ? "it" : "them"}`;
  };
  const show = () => {
    if (count > waiting.length) return location.assign(document.getElementById("drawer")?.dataset.back ?? "/");
    waiting.forEach((row) => insert(row));
    say(`${count} new event${count === 1 ? "" : "s"} shown`);
    waiting = [];
    count = 0;
    announce();
  };
  const label = () => {
    liveSwitch.hidden = false;
    liveSwitch.setAttribute("aria-pressed", String(live));
    liveSwitch.title = live ? "New events come in by themselves" : "New events are only announced";
  };
  liveSwitch.addEventListener("click", () => {
    live = !live;
    remember("live", live ? "on" : "off");
    label();
    if (live && count) show();
  });
  news.addEventListener("click", show);
  label();

  follow(follows, ({ number, html }) => {
    count += number;
    const rows = rowsOf(html);
    waiting = waiting.length + rows.length > WAITING_MAX ? [] : [...waiting, ...rows];
    if (live) show();
    else {
      announce();
      say(`${count} new`);
    }
  });
}

/** @param {string} url @param {(news: { number: number, html: string }) => void} onNews */
function follow(url, onNews) {
  const source = new EventSource(url);
  let timer = 0;
  source.addEventListener("open", () => {
    clearTimeout(timer);
    timer = 0;
    regain();
  });
  source.addEventListener("news", (event) => onNews(JSON.parse(event.data)));
  // The session is over: the page that is loaded then asks to sign in.
  source.addEventListener("over", () => location.reload());
  source.addEventListener("error", () => {
    // A connection that was lost is made anew by itself; one that was refused is not.
    if (source.readyState === EventSource.CLOSED) askWhoWeAre();
    else timer ||= setTimeout(lose, LOST_MS);
  });
  addEventListener("pagehide", () => source.close());
}

/** Goes to where one signs in when the session is over; else the page is as good as before, but for news. */
async function askWhoWeAre() {
  const headers = { "HX-Request": "true", "HX-Current-URL": location.href };
  const answer = await fetch("/suggestions?member=user", { headers }).catch(() => null);
  const elsewhere = answer?.headers.get("HX-Redirect");
  if (elsewhere) location.assign(elsewhere);
}

/** @param {string} html @returns {HTMLTableRowElement[]} */
function rowsOf(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return [...template.content.querySelectorAll("tr")];
}

/** Puts a row where its time says; one that is older than all that is shown has no place in it yet. @param {HTMLTableRowElement} row */
function insert(row) {
  const body = document.getElementById("rows");
  if (!body || document.getElementById(row.id)) return;
  const rows = /** @type {HTMLTableRowElement[]} */ ([...body.querySelectorAll("tr[id]")]);
  const next = rows.find((other) => (other.dataset.at ?? "") < (row.dataset.at ?? ""));
  if (!next && body.querySelector(".more")) return;
  row.classList.add("is-new");
  if (next) next.before(row);
  else rows.length ? rows.at(-1)?.after(row) : body.prepend(row);
  showTimes(row);
}
