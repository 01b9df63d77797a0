import assert from 'node:assert/strict';
import { before, test } from 'node:test';

import { Runner, go, gone, loaded, open, row, seen } from './sandhog.mjs';

let runner;
let letter;
let job;
let pages;

before(async () => {
  runner = await Runner.start({ shared: true, handlers: { obey: ['obedient', 'grants.enqueue = ["follow"]\n'] } });
  letter = await runner.ended('panic');
  await runner.ended({ job_type: 'obey', job_id: 'a-rather-long-id-'.repeat(12), do: 'err' });
  job = await runner.ended('follow 2 complete');
  await runner.enqueue({ job_type: 'a-job-type-with-a-name-that-does-not-end-and-has-no-space-in-it-at-all-'.repeat(3) });
  await runner.enqueue('complete', '?after=1h');
  pages = ['#/', '#/jobs', `#/jobs/${encodeURIComponent(job)}`, '#/dead', '#/dead?all', `#/dead/${encodeURIComponent(letter)}`, '#/handlers'];
});

/** Texts whose contrast is under what the guidelines ask for. */
const faint = () => {
  const luminance = ([r, g, b]) => {
    const part = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r / 255) + 0.7152 * part(g / 255) + 0.0722 * part(b / 255);
  };
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const backOf = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || element.closest('svg, .unseen')) continue;
    const style = getComputedStyle(element);
    const [one, other] = [luminance(parse(style.color)), luminance(backOf(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)} ${element.localName}.${element.className}: ${element.textContent.slice(0, 40)}`);
  }
  return found;
};

for (const colorScheme of ['light', 'dark']) {
  test(`every text has enough contrast, ${colorScheme}`, async () => {
    const page = await open(runner, '#/', { colorScheme });
    const back = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(back === 'rgb(19, 20, 22)', colorScheme === 'dark');
    for (const address of pages) {
      await go(page, address);
      assert.deepEqual(await page.evaluate(faint), [], address);
    }
  });
}

test('no page is wider than a screen of 360 pixels, and nothing is cut off', async () => {
  const page = await open(runner, '#/', { viewport: { width: 360, height: 740 } });
  for (const address of pages) {
    await go(page, address);
    for (const summary of await page.locator('summary').all()) await summary.click();
    const wide = await page.evaluate(() => [...document.querySelectorAll('body *')]
      .filter((element) => element.checkVisibility() && !element.closest('.unseen, .skip, thead, svg') && element.getBoundingClientRect().right > innerWidth + 1)
      .map((element) => `${element.localName}.${element.className}`));
    assert.deepEqual(wide, [], address);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), address);
  }
});

test('every control has a name, every page one first heading, and every table its headers', async () => {
  const page = await open(runner);
  for (const address of pages) {
    await go(page, address);
    assert.equal(await page.locator('h1').count(), 1, address);
    const nameless = await page.evaluate(() => [...document.querySelectorAll('button, a[href], input, select')]
      .filter((element) => !(element.getAttribute('aria-label') || element.textContent.trim() || element.labels?.length))
      .map((element) => element.outerHTML));
    assert.deepEqual(nameless, [], address);
    for (const table of await page.locator('table').all()) {
      assert.equal(await table.locator('th:not([scope=col])').count(), 0);
      assert.equal(await table.locator('th').count(), await table.locator('tbody tr').first().locator('td').count());
      assert.ok(await table.getAttribute('aria-label'));
    }
  }
});

test('states are told by words, not by colours alone', async () => {
  const page = await open(runner, '#/jobs');
  for (const state of await page.locator('.state').all()) {
    assert.match(await state.innerText(), /^(ready|scheduled|parked|running|dead|completed)$/);
    assert.equal(await state.locator('svg').count(), 1);
  }
});

/** Presses Tab until what has the focus is `wanted`. */
async function tabTo(page, wanted) {
  for (let presses = 0; presses < 100; presses += 1) {
    if (await wanted.evaluate((element) => element === document.activeElement).catch(() => false)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail('the Tab key does not lead there');
}

test('the keyboard alone is enough: skip link, pages, filter, an action and its undo', async () => {
  const page = await open(runner);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');

  await page.reload();
  await loaded(page);
  await tabTo(page, page.getByRole('link', { name: 'Dead letters', exact: true }));
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, 'solid');
  await page.keyboard.press('Enter');
  await seen(page.getByRole('heading', { name: 'Dead letters' }));
  assert.equal(await page.evaluate(() => document.activeElement.localName), 'h1');
  await tabTo(page, page.getByRole('button', { name: /^Delete/ }).first());
  await page.keyboard.press('Enter');
  await seen(page.getByText('under way').first());
  // What was said, for those who do not see it.
  await page.waitForFunction(() => document.getElementById('said').textContent.includes('Control Z undoes it'));
  await tabTo(page, page.getByRole('button', { name: 'Undo' }));
  await page.keyboard.press('Enter');
  await gone(page.getByText('under way'));
  assert.equal((await runner.api('GET', 'dead')).jobs.length, 2);
});

test('a dialog holds the focus, closes on Escape and gives the focus back', async () => {
  const waits = await runner.enqueue('complete', '?after=1h');
  const page = await open(runner, `#/jobs/${encodeURIComponent(waits)}`);
  const cancel = page.getByRole('button', { name: 'Cancel', exact: true });
  await tabTo(page, cancel);
  await page.keyboard.press('Enter');
  await seen(page.getByRole('dialog'));
  for (let presses = 0; presses < 6; presses += 1) {
    const inside = await page.evaluate(() => document.activeElement === document.body || document.querySelector('dialog').contains(document.activeElement));
    assert.ok(inside, 'the focus left the dialog');
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !document.querySelector('dialog').open);
  assert.ok(await cancel.evaluate((element) => element === document.activeElement));
  assert.equal((await runner.show(waits)).state, 'scheduled');
});

test('nothing moves for who asked for no motion', async () => {
  const page = await open(runner, '#/dead', { reducedMotion: 'reduce' });
  await page.getByRole('button', { name: /^Delete/ }).first().click();
  await seen(page.locator('.toast'));
  assert.equal(await page.locator('.toast').evaluate((toast) => getComputedStyle(toast).animationName), 'none');
  await page.getByRole('button', { name: 'Undo' }).click();
});

test('what somebody types, and where the focus is, outlives what changes around it', async () => {
  const page = await open(runner, '#/jobs');
  const type = page.getByLabel('Type');
  await type.pressSequentially('half');
  const id = await runner.ended('complete');
  await seen(row(page, id));
  await type.pressSequentially('-typed');
  assert.equal(await type.inputValue(), 'half-typed');
});
