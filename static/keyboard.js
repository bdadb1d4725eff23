// Keys: / and the arrows or j and k go from the search box through the results and back, + and - say whether a result
// is relevant, Esc clears.

/** Moves to the result `by` places on; before the first is the search box. */
function moveFocus(box, by) {
  const hits = [...document.querySelectorAll('.hit')];
  const at = hits.indexOf(document.activeElement?.closest('.hit'));
  const target = at + by;
  if (at === 0 && by < 0) {
    box.focus();
    return;
  }
  const hit = hits[Math.min(Math.max(target, 0), hits.length - 1)];
  if (!hit) return;
  for (const other of hits) other.tabIndex = other === hit ? 0 : -1;
  hit.focus();
  hit.scrollIntoView({ block: 'nearest' });
}

function isWriting(target) {
  return target.matches('input:not([type=checkbox]), textarea, select');
}

/** Listens on the whole page. `box` is the search box, `clear` what Esc does. */
export function listenToKeys(box, clear) {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { key, target } = event;
    const isWritingElsewhere = isWriting(target) && target !== box;
    if (isWritingElsewhere) return;
    const isQuery = target === box;
    const isHit = target.matches('.hit');
    const act = {
      Escape: clear,
      ArrowDown: () => moveFocus(box, 1),
      ArrowUp: isQuery ? null : () => moveFocus(box, -1),
      '/': isQuery ? null : () => box.select(),
      j: isQuery ? null : () => moveFocus(box, 1),
      k: isQuery ? null : () => moveFocus(box, -1),
      '+': isHit ? () => target.querySelector('.thumb.up')?.click() : null,
      '-': isHit ? () => target.querySelector('.thumb.down')?.click() : null,
      Enter: isHit ? () => target.querySelector('.more')?.click() : null,
    }[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
