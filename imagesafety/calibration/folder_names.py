"""Names of folders that look like labels and are none."""

from __future__ import annotations

from collections.abc import Collection

from imagesafety.evaluation.material import ACCEPT, NOT, REJECT, folder_labels, shown

_SYNONYMS = {
    **dict.fromkeys(("accepted", "good", "harmless", "ok"), ACCEPT),
    **dict.fromkeys(("rejected", "bad", "nsfw"), REJECT),
}


def meant_label(name: str, concepts: Collection[str]) -> str:
    """What is wrong with the name of a folder that looks like a label; empty if it does not."""
    plain = name.casefold()
    known = {label.casefold(): label for label in folder_labels(concepts)}
    if label := {**_SYNONYMS, **known}.get(plain):
        return f"looks like a label, which is written {shown(label)}; rename it"
    if plain.startswith(NOT):
        concept = shown(name[len(NOT) :])
        return (
            f"looks like a label, but the policy has no concept {concept} "
            f"(it has {', '.join(map(shown, concepts))}); rename it"
        )
    return ""
