// A question before what cannot be taken back.

const $ = (id) => document.getElementById(id);

let answered = Promise.resolve();

/** Asks; true where the answer is `yes`, which is what its button says. */
export function confirmed(question) {
  // A browser tells of a dialog's end only with its next frame. A question that is asked until then waits for it: else it
  // would take the answer to the one before for its own.
  answered = answered.then(() => ask(question));
  return answered;
}

function ask({ title, text, yes, isDanger = false }) {
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
