'use strict';
// Keeps the page up to date, which is complete without this: fetches it again, and replaces the heading and `main`.
{
  // Milliseconds.
  const INTERVAL = 5_000;
  const TIMEOUT = 4_000;
  const MAX_INTERVAL = 30_000;

  const DENIED = 'Access denied';
  const NOT_CONNECTED = 'Not connected';
  const PAUSED = 'Updates are paused';

  const REPLACED = ['h1', 'main', 'link[rel=icon]'];
  const FOCUSABLE = 'main a, main summary';

  const find = selector => document.querySelector(selector);
  const button = find('#updates');
  const notice = find('#notice');
  const announcement = find('#announcement');

  let title = document.title;
  let receivedAt = Date.now();
  let announced = summary();
  let isPaused = false;
  let isUpdating = false;
  let failures = 0;
  let problem = null;
  let timer;

  async function update() {
    isUpdating = true;
    try {
      const page = await download();
      if (!isPaused) {
        show(page);
        announce(summary());
      }
      failures = 0;
      problem = null;
    } catch (error) {
      failures += 1;
      problem = error === DENIED ? DENIED : NOT_CONNECTED;
      announce(problem);
    }
    isUpdating = false;
    showNotice();
    schedule(Math.min(INTERVAL * 2 ** Math.max(failures - 1, 0), MAX_INTERVAL));
  }

  async function download() {
    const response = await fetch(location.href, { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT) });
    if (response.status === 401 || response.status === 403) throw DENIED;
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    // A proxy may respond with a page of its own.
    if (!response.ok || !page.querySelector('#generated')) throw NOT_CONNECTED;
    return page;
  }

  function show(page) {
    const open = new Set([...document.querySelectorAll('details[open]')].map(details => details.dataset.check));
    const focused = document.activeElement.matches(FOCUSABLE) && keyOf(document.activeElement);
    for (const selector of REPLACED) find(selector).replaceWith(page.querySelector(selector));
    for (const details of document.querySelectorAll('details')) details.open = open.has(details.dataset.check);
    if (focused) {
      [...document.querySelectorAll(FOCUSABLE)].find(element => keyOf(element) === focused)?.focus({ preventScroll: true });
    }
    title = page.title;
    receivedAt = Date.now();
  }

  // What an element that can have the focus is known by in the next version of the page.
  function keyOf(element) {
    return element.tagName + (element.getAttribute('href') ?? element.parentElement.dataset.check);
  }

  function summary() {
    return `${title}. ${find('#summary').textContent}`;
  }

  // Only what changed, so that a screen reader is silent otherwise.
  function announce(text) {
    if (text !== announced) announcement.textContent = announced = text;
  }

  function showNotice() {
    document.title = problem ? `? ${title}` : title;
    notice.hidden = !problem && !isPaused;
    if (notice.hidden) return;
    const shown = find('#generated').dateTime.slice(11, 19);
    const retries = isPaused ? '' : ' Retrying.';
    notice.textContent = `${isPaused ? PAUSED : problem}. Showing ${shown} UTC, ${age()} old.${retries}`;
  }

  function age() {
    const seconds = Math.floor((Date.now() - receivedAt) / 1_000);
    if (seconds < 120) return `${seconds} s`;
    if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
    return `${Math.floor(seconds / 3_600)} h`;
  }

  // Not while the page is hidden. It is updated while it is visible without the focus, as on the screen on a wall.
  function schedule(delay) {
    clearTimeout(timer);
    if (!isPaused && !isUpdating && !document.hidden) timer = setTimeout(update, delay);
  }

  button.addEventListener('click', () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? 'Resume updates' : 'Pause updates';
    showNotice();
    schedule(0);
  });
  document.addEventListener('visibilitychange', () => schedule(0));
  setInterval(showNotice, 1_000);
  button.hidden = false;
  schedule(INTERVAL);
}
