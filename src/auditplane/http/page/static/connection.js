// @ts-check
// Says when the server can't be reached, and when it is back.

const RETRY_MS = 2000;
let lost = false;

export function watchConnection() {
  document.body.addEventListener("htmx:sendError", () => lose());
}

/** The server did not answer: the page says so, and asks until it does. */
export async function lose() {
  if (lost) return;
  lost = true;
  show(true);
  while (lost) {
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    const answer = await fetch("/health", { cache: "no-store" }).catch(() => null);
    if (answer?.ok) regain();
  }
}

/** The server answers again. */
export function regain() {
  if (!lost) return;
  lost = false;
  show(false);
  for (const part of document.querySelectorAll("[hx-get]")) {
    if (part.querySelector(".loading")) htmx.trigger(part, "load");
  }
}

/** @param {boolean} isLost */
function show(isLost) {
  const notice = document.getElementById("lost");
  if (notice) notice.hidden = !isLost;
}
