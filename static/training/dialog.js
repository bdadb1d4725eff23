// A question before what cannot be taken back.

const $ = (id) => document.getElementById(id);

/** Asks; true where the answer is `yes`, which is what its button says. */
export function confirmed({ title, text, yes, isDanger = false }) {
  const dialog = $('confirm');
  $('confirm-title').textContent = title;
  $('confirm-text').textContent = text;
  $('confirm-yes').textContent = yes;
  $('confirm-yes').classList.toggle('danger', isDanger);
  dialog.returnValue = 'no';
  dialog.showModal();
  $('confirm-no').focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}
