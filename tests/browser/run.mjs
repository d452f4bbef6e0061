// Runs a case of `tests/page.rs` in Debian's Chromium: `node run.mjs CASE ARGUMENT…`. Exits with 1 if it fails.
//
// A case that needs something of the server writes its word to standard output, and waits for a line on standard input.

import assert from 'node:assert/strict';
import { readFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import puppeteer from 'puppeteer-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TAGS = { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] };
// The only rule whose result depends on the theme.
const OF_THEME = { type: 'rule', values: ['color-contrast'] };
const SCREENSHOTS = fileURLToPath(new URL('../../target/screenshots/', import.meta.url));
const WAIT = { timeout: 30_000 };

const THEMES = {
  light: [{ name: 'prefers-color-scheme', value: 'light' }],
  dark: [{ name: 'prefers-color-scheme', value: 'dark' }],
  forced: [{ name: 'prefers-color-scheme', value: 'dark' }, { name: 'forced-colors', value: 'active' }],
};

// How much faster the timers of a page run in the cases that wait for updates.
const SPEED = 20;

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the test do something to its server. */
async function request(word) {
  console.log(word);
  assert.equal((await input.next()).value, 'done');
}

/** A tab that records what must not happen. */
async function open(browser, url, { width = 1280, isFast = false, hasScript = true } = {}) {
  const page = await browser.newPage();
  const seen = { requests: 0, errors: [] };
  page.on('request', request => request.url().startsWith('data:') || (seen.requests += 1));
  page.on('pageerror', error => seen.errors.push(error.message));
  page.on('dialog', dialog => seen.errors.push(dialog.message()) && dialog.dismiss());
  await page.setViewport({ width, height: 800 });
  await page.setJavaScriptEnabled(hasScript);
  const session = await page.createCDPSession();
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', event => {
      window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
  });
  if (isFast) {
    await page.evaluateOnNewDocument(speed => {
      const original = window.setTimeout;
      window.delays = [];
      window.setTimeout = (run, delay) => {
        window.delays.push(delay);
        return original(run, delay / speed);
      };
    }, SPEED);
  }
  const response = await page.goto(url, { waitUntil: 'load' });
  assert.equal(response.status(), 200, url);
  return { page, seen, session };
}

const text = (page, selector) => page.$eval(selector, element => element.textContent);

/** Waits for a condition in the page, and says which one did not hold. */
async function eventually(page, what, condition, ...args) {
  await page.waitForFunction(condition, WAIT, ...args).catch(error => {
    throw new Error(`${what}: ${error.message}`);
  });
}

/** Each page in each theme and width: `NAME=URL`. */
async function views(browser, ...pages) {
  for (const argument of pages) {
    const [name, url] = argument.split(/=(.*)/s);
    for (const width of [360, 1280]) {
      const { page, seen, session } = await open(browser, url, { width });
      assert.equal(seen.requests, 1, name);
      // An update would replace what is looked at.
      await page.evaluate(() => {
        for (let timer = setTimeout(() => {}); timer > 0; timer -= 1) clearTimeout(timer);
      });
      const inEachTheme = async run => {
        for (const [theme, features] of Object.entries(THEMES)) {
          await session.send('Emulation.setEmulatedMedia', { features });
          await run(page, theme, `${name}-${theme}-${width}`);
        }
      };
      await inEachTheme(look);
      await page.evaluate(AXE);
      await page.evaluate(() => {
        // Further rows are like these.
        for (const row of document.querySelectorAll('tbody tr:nth-child(n + 20)')) row.remove();
        for (const details of document.querySelectorAll('details')) details.open = true;
      });
      await inEachTheme(audit);
      await session.send('Emulation.setEmulatedMedia', { media: 'print', features: THEMES.dark });
      assert.equal(await background(page), LIGHT, `${name} in print`);
      assert.deepEqual(await page.evaluate(() => window.violations), [], name);
      assert.deepEqual(seen.errors, [], name);
      await page.close();
    }
  }
}

const LIGHT = 'rgb(255, 255, 255)';
const DARK = 'rgb(13, 17, 23)';
const background = page => page.$eval('body', body => getComputedStyle(body).backgroundColor);

/** Checks the layout, and takes a screenshot. */
async function look(page, theme, at) {
  const found = await page.evaluate(() => ({
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    // Hostile text that was parsed as markup.
    injected: document.querySelectorAll('main script, main img, main iframe, [style], [onerror]').length,
    height: document.documentElement.scrollHeight,
    short: [...document.querySelectorAll('tbody tr')].filter(row => row.getBoundingClientRect().height < 44).length,
    small: [...document.querySelectorAll('button:not([hidden]), summary, a')]
      .map(element => element.getBoundingClientRect())
      .filter(({ width, height }) => width < 24 || height < 24).length,
  }));
  assert.equal(found.overflow, 0, `horizontal overflow: ${at}`);
  assert.equal(found.injected, 0, at);
  assert.equal(found.short, 0, `rows below 44 px: ${at}`);
  assert.equal(found.small, 0, `targets below 24 px: ${at}`);
  // Otherwise the style was not applied.
  if (theme !== 'forced') assert.equal(await background(page), theme === 'light' ? LIGHT : DARK, at);
  const clip = { x: 0, y: 0, width: page.viewport().width, height: Math.min(found.height, 2_400) };
  await page.screenshot({ path: `${SCREENSHOTS}${at}.png`, clip });
}

/** Checks the rules of WCAG. */
async function audit(page, theme, at) {
  const violations = await page.evaluate(async runOnly => {
    const { violations } = await window.axe.run({ runOnly, resultTypes: ['violations'] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} ${nodes[0].failureSummary}`);
  }, theme === 'light' ? TAGS : OF_THEME);
  assert.deepEqual(violations, [], at);
}

/** Without script, the page is complete, and is loaded again only at `?refresh`. */
async function scriptOff(browser, url) {
  const { page, seen } = await open(browser, url, { hasScript: false });
  const visible = await page.$eval('body', body => body.innerText);
  for (const part of ['DOWN', '1 of 2 checks down: cache.sessions.', 'database.db', 'it is switched off']) {
    assert.ok(visible.includes(part), `${part}: ${visible}`);
  }
  assert.ok(!visible.includes('Pause updates'), visible);
  await page.click('summary');
  assert.ok((await page.$eval('details', details => details.innerText)).includes('Consecutive failures'));
  assert.equal(seen.requests, 1);
  const again = await open(browser, `${url}?refresh=1`, { hasScript: false });
  await again.page.waitForRequest(url + '?refresh=1', WAIT);
}

/** Everything can be reached and used with the keyboard, and an update keeps open details and the focus. */
async function keyboard(browser, url) {
  const { page } = await open(browser, url);
  const focused = () => page.evaluate(() => {
    const { activeElement } = document;
    const { outlineStyle, outlineWidth } = getComputedStyle(activeElement);
    return activeElement !== document.body && { name: activeElement.textContent, ring: `${outlineWidth} ${outlineStyle}` };
  });
  const names = [];
  for (;;) {
    await page.keyboard.press('Tab');
    const element = await focused();
    // After the last one, the focus leaves the page.
    if (!element || element.name === names[0]) break;
    assert.equal(element.ring, '3px solid', element.name);
    names.push(element.name);
  }
  assert.deepEqual(names, [
    'Pause updates', 'ready', 'live', 'startup', 'Details of cache.sessions', 'Details of database.db',
    'JSON', 'JSON with details', 'Metrics', 'Schema',
  ]);

  await page.reload();
  for (let tabs = 0; tabs < 5; tabs += 1) await page.keyboard.press('Tab');
  assert.equal((await focused()).name, 'Details of cache.sessions');
  await page.keyboard.press('Enter');
  await page.evaluate(() => { window.before = document.querySelector('main'); });
  await eventually(page, 'an update', () => document.querySelector('main') !== window.before);
  assert.deepEqual(await page.evaluate(() => [...document.querySelectorAll('details')].map(details => details.open)), [true, false]);
  assert.deepEqual(await focused(), { name: 'Details of cache.sessions', ring: '3px solid' });
  await page.screenshot({ path: `${SCREENSHOTS}details.png` });

  await page.keyboard.press('Enter');
  assert.equal(await page.$('details[open]'), null);
  await page.keyboard.down('Shift');
  for (let tabs = 0; tabs < 4; tabs += 1) await page.keyboard.press('Tab');
  await page.keyboard.up('Shift');
  await page.keyboard.press('Space');
  assert.equal((await focused()).name, 'Resume updates');
}

/** The page follows the server: changes, its loss and its return, denial; it stops while paused or hidden. */
async function updates(browser, url) {
  const { page, seen } = await open(browser, url, { isFast: true });
  const shows = (what, selector, pattern) =>
    eventually(page, what, (selector, pattern) => new RegExp(pattern).test(document.querySelector(selector).textContent), selector, pattern);
  const announces = text => shows(`announces ${text}`, '#announcement', `^${text}$`);
  const icon = () => page.$eval('link[rel=icon]', link => link.href);
  const isNoticed = () => page.$eval('#notice', notice => !notice.hidden);

  // Without a change, nothing is announced.
  await eventually(page, 'two updates', () => window.delays.length >= 3);
  assert.equal(await text(page, '#announcement'), '');
  assert.equal(await isNoticed(), false);
  const up = await icon();

  await request('fail');
  await announces('DOWN · orders\\. 1 of 2 checks down: cache\\.sessions\\.');
  assert.equal(await page.title(), 'DOWN · orders');
  assert.notEqual(await icon(), up);

  await request('stop');
  await shows('the loss', '#notice', '^Not connected\\. Showing \\d\\d:\\d\\d:\\d\\d UTC, \\d+ s old\\. Retrying\\.$');
  await announces('Not connected');
  assert.equal(await isNoticed(), true);
  assert.equal(await page.title(), '? DOWN · orders');
  assert.match(await text(page, 'main'), /cache\.sessions/);
  await eventually(page, 'it backs off', () => window.delays.slice(-5).join() === '5000,10000,20000,30000,30000');
  await shows('the age', '#notice', ', [2-9] s old');
  await page.screenshot({ path: `${SCREENSHOTS}not-connected.png` });

  await request('start');
  await announces('DOWN · orders\\. 1 of 2 checks down: cache\\.sessions\\.');
  await eventually(page, 'the notice disappears', () => document.querySelector('#notice').hidden);
  assert.equal(await page.title(), 'DOWN · orders');

  await request('deny');
  await shows('the denial', '#notice', '^Access denied\\. Showing ');
  await request('allow');
  await eventually(page, 'it is allowed', () => document.querySelector('#notice').hidden);
  await request('mend');
  await announces('UP · orders\\. All 2 checks up\\.');
  assert.equal(await icon(), up);

  await page.click('#updates');
  await shows('the pause', '#notice', '^Updates are paused\\. Showing .* s old\\.$');
  await assertSilent(seen);
  await page.click('#updates');
  await eventually(page, 'it is resumed', () => document.querySelector('#notice').hidden);
  await page.waitForRequest(url, WAIT);

  const other = await browser.newPage();
  await other.bringToFront();
  await eventually(page, 'it is hidden', () => document.hidden);
  await assertSilent(seen);
  await page.bringToFront();
  await page.waitForRequest(url, WAIT);
  assert.deepEqual(await page.evaluate(() => window.violations), []);
}

/** No request is sent in the time of several updates, after one that may be in flight. */
async function assertSilent(seen) {
  await new Promise(resolve => setTimeout(resolve, 300));
  const before = seen.requests;
  await new Promise(resolve => setTimeout(resolve, 4 * 5_000 / SPEED));
  assert.equal(seen.requests, before);
}

/** The links of the page work with and without a trailing slash, and so does its update. */
async function links(browser, url) {
  for (const address of [url, `${url}/`]) {
    const { page, seen } = await open(browser, address, { isFast: true });
    const responses = await page.evaluate(() => Promise.all(
      [...document.querySelectorAll('a')].map(async ({ textContent, href }) => {
        const response = await fetch(href);
        return [textContent, response.headers.get('content-type'), (await response.text()).slice(0, 20)];
      }),
    ));
    const json = ['application/json', '{"status":"UP","check'];
    const expected = {
      ready: json, live: json, startup: json, JSON: json, 'JSON with details': json,
      Metrics: ['text/plain; version=0.0.4; charset=utf-8'], Schema: ['application/schema+json'],
    };
    assert.deepEqual(responses.map(([name]) => name), Object.keys(expected), address);
    for (const [name, type, start] of responses) {
      assert.equal(type, expected[name][0], `${name} of ${address}`);
      if (expected[name][1]) assert.equal(start, expected[name][1].slice(0, 20), `${name} of ${address}`);
    }
    const before = seen.requests;
    await page.waitForRequest(address, WAIT);
    await eventually(page, 'an update', () => window.delays.length >= 2);
    assert.equal(await page.$eval('#notice', notice => notice.hidden), true, `${before} requests`);
    await page.close();
  }
}

const [name, ...args] = process.argv.slice(2);
const browser = await puppeteer.launch({
  executablePath: '/usr/bin/chromium',
  pipe: true,
  // The sandbox of Chromium does not work for root.
  args: ['--disable-dev-shm-usage', ...(process.getuid() === 0 ? ['--no-sandbox'] : [])],
});
mkdirSync(SCREENSHOTS, { recursive: true });
let code = 0;
try {
  await { views, scriptOff, keyboard, updates, links }[name](browser, ...args);
} catch (error) {
  console.error(error);
  code = 1;
}
await browser.close();
process.exit(code);
