// @ts-check
// How this browser shows the page: its colours, and times in UTC or local.

import { allIn } from "./elements.js";

const THEMES = ["auto", "light", "dark"];
const THEME_NAMES = { auto: "Auto", light: "Light", dark: "Dark" };

/** @param {string} name @param {string} otherwise */
export function remembered(name, otherwise) {
  try {
    return localStorage.getItem(`auditplane.${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** @param {string} name @param {string} value */
export function remember(name, value) {
  try {
    localStorage.setItem(`auditplane.${name}`, value);
  } catch {
    // Without storage it holds for this page.
  }
}

let zone = remembered("zone", "utc");

/** Whether times are shown in the zone of this machine. */
export function isLocal() {
  return zone === "local";
}

/** The name of the zone in which times are shown. */
export function zoneName() {
  if (!isLocal()) return "UTC";
  const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(new Date());
  return parts.find((part) => part.type === "timeZoneName")?.value ?? "local";
}

/** @param {Date} date */
export function shownTime(date) {
  const shifted = isLocal() ? new Date(date.getTime() - date.getTimezoneOffset() * 60_000) : date;
  return shifted.toISOString().slice(0, 19).replace("T", " ");
}

/** Shows all times of a part of the page in the chosen zone. @param {ParentNode} root */
export function showTimes(root) {
  for (const time of allIn(root, "time[datetime]")) {
    const text = /** @type {HTMLTimeElement} */ (time).dateTime;
    time.textContent = shownTime(new Date(`${text.slice(0, 23)}Z`));
  }
  const name = zoneName();
  for (const label of allIn(root, ".zone")) label.textContent = name;
}

/** @param {() => void} changed is called when one was switched */
export function enableSwitches(changed) {
  const themeSwitch = /** @type {HTMLButtonElement | null} */ (document.getElementById("theme-switch"));
  const zoneSwitch = /** @type {HTMLButtonElement | null} */ (document.getElementById("zone-switch"));
  let theme = remembered("theme", "auto");

  const label = () => {
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    if (themeSwitch) {
      themeSwitch.textContent = THEME_NAMES[theme];
      const now = theme === "auto" ? "the system’s" : theme;
      themeSwitch.setAttribute("aria-label", `${THEME_NAMES[theme]}: colours are ${now}; switch to ${next}`);
      themeSwitch.title = `Colours: ${THEME_NAMES[theme].toLowerCase()}`;
      themeSwitch.hidden = false;
    }
    if (zoneSwitch) {
      zoneSwitch.textContent = zoneName();
      const other = isLocal() ? "UTC" : "local time";
      zoneSwitch.setAttribute("aria-label", `${zoneName()}: times are in it; switch to ${other}`);
      zoneSwitch.title = `Times: ${zoneName()}`;
      zoneSwitch.hidden = false;
    }
  };
  themeSwitch?.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember("theme", theme);
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    label();
    changed();
  });
  zoneSwitch?.addEventListener("click", () => {
    zone = isLocal() ? "utc" : "local";
    remember("zone", zone);
    label();
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  label();
}
