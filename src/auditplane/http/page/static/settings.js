// Runs before the page is painted, so that it comes in the colours that were chosen.
(() => {
  try {
    const theme = localStorage.getItem("auditplane.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Without storage the system's colours stand.
  }
})();
