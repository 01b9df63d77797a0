// Numbers and times as people read them.

const COUNT = new Intl.NumberFormat('en');
const MOMENT = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export const count = (number) => (number == null ? '–' : COUNT.format(number));

/** `1 job`, `2 jobs`. */
export const counted = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A duration in three digits or so. */
export function duration(us) {
  if (us == null) return '–';
  if (us < 1_000) return `${us} µs`;
  if (us < 1_000_000) return `${digits(us / 1_000)} ms`;
  const seconds = us / 1_000_000;
  if (seconds < 60) return `${digits(seconds)} s`;
  return span(us / 1_000);
}

/** A longer one, in whole units. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

export function size(bytes) {
  if (bytes == null) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let amount = bytes;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? amount : digits(amount)} ${units[unit]}`;
}

/** How long ago, or in how long. */
export function relative(ms, now = Date.now()) {
  if (ms == null) return '–';
  const ago = now - ms;
  if (Math.abs(ago) < 1_500) return 'now';
  return ago > 0 ? `${span(ago)} ago` : `in ${span(-ago)}`;
}

export const moment = (ms) => (ms == null ? '' : MOMENT.format(new Date(ms)));

function digits(number) {
  if (number >= 100) return String(Math.round(number));
  return String(Number(number.toFixed(number >= 10 ? 1 : 2)));
}
