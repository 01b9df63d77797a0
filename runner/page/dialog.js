// The one dialog. The browser keeps focus in it, closes it on Escape and puts focus back.

import { h, render } from './dom.js';
import { button } from './parts.js';

/** Asks, and answers whether the person agrees; with a `field`, what was typed, or null. */
export function ask({ title, text, field, accept, danger = false }) {
  const dialog = document.getElementById('dialog');
  return new Promise((resolve) => {
    let answer = null;
    const agree = (event) => {
      event?.preventDefault();
      answer = field ? dialog.querySelector('input').value : true;
      dialog.close();
    };
    dialog.onclose = () => {
      render(dialog);
      resolve(field ? answer : answer === true);
    };
    render(dialog,
      h('form', { onsubmit: agree },
        h('h2', { id: 'dialog-title' }, title),
        h('p', null, text),
        field ? h('label', { class: 'field' }, h('span', null, field), h('input', { type: 'password', autocomplete: 'off', required: true })) : null,
        h('div', { class: 'actions' },
          button('Back', () => dialog.close()),
          h('button', { type: 'submit', class: danger ? 'button is-danger' : 'button is-main' }, accept))));
    dialog.showModal();
    dialog.querySelector(field ? 'input' : 'button[type=submit]').focus();
  });
}
