// The page is complete without this. It opens a reason that a link points to, and opens or closes them all.
(() => {
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  reveal();
  const reasons = [...document.querySelectorAll("details.reason")];
  const all = document.getElementById("open-all");
  if (!all || !reasons.length) return;
  const label = () => { all.textContent = reasons.every((d) => d.open) ? "Close all" : "Open all"; };
  all.hidden = false;
  all.addEventListener("click", () => {
    const open = !reasons.every((d) => d.open);
    reasons.forEach((d) => { d.open = open; });
    label();
  });
  reasons.forEach((d) => d.addEventListener("toggle", label));
  label();
})();
