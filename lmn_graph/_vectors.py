"""Tables of embeddings from files: vectors in GloVe's text form, or a matrix in the order of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from topologies import _checks


def read_words(path: str | Path, count: int | None = None) -> list[str]:
    """The words of a file in GloVe's text form, at most the first ``count``.

    Raises:
        ValueError: as :func:`vectors_for`.
    """
    found = []
    for word, _ in _lines(Path(path).expanduser()):
        found.append(word)
        if len(found) == count:
            break
    return found


def vectors_for(vocabulary: Sequence[str], path: str | Path, *, words: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Embeddings of the tokens of a vocabulary.

    Args:
        vocabulary: V tokens.
        path: a text file of lines ``word v1 … vD`` as GloVe has them; or an .npy matrix [W, D], row i being that of line i of ``words``.
        words: with a matrix, a list of its words, one a line; None where row i is that of token i.

    Returns:
        the table float32 [V, D], zero where there is no vector, and whether there is one, bool [V].

    Raises:
        ValueError: naming file and line, or the sizes that do not fit; also where not a single token has a vector.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"vectors must be a file, got {str(path)!r}")
    number = {word: place for place, word in enumerate(vocabulary)}
    if path.suffix == ".npy":
        table, known = _from_matrix(path, number, words)
    else:
        table, known = _from_text(path, number)
    if not known.any():
        raise ValueError(f"vectors must hold one of the {len(vocabulary)} tokens at least, got none of them in {path}")
    return torch.from_numpy(table), torch.from_numpy(known)


def _from_matrix(path: Path, number: dict[str, int], words: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not an .npy file of numbers, or damaged: {error}") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
        raise ValueError(f"{path} must hold floating-point numbers [W, D], got {getattr(matrix, 'dtype', '?')} {list(matrix.shape)}")
    if words is None:
        if len(matrix) != len(number):
            raise ValueError(f"{path} must have a row for each of the {len(number)} tokens, got {len(matrix)}; or name its words")
        rows = {place: place for place in range(len(matrix))}
    else:
        listed = Path(words).expanduser().read_text(encoding="utf-8").split("\n")
        listed = listed[:-1] if not listed[-1] else listed
        if len(listed) != len(matrix):
            raise ValueError(f"{path} must have a row for each of the {len(listed)} words of {words}, got {len(matrix)}")
        rows = {number[word]: row for row, word in enumerate(listed) if word in number}
    table, known = np.zeros((len(number), matrix.shape[1]), dtype=np.float32), np.zeros(len(number), dtype=bool)
    if rows:
        places = np.fromiter(rows, dtype=np.int64)
        table[places] = matrix[np.fromiter(rows.values(), dtype=np.int64)]
        known[places] = True
    bad = ~np.isfinite(table).all(1)
    if bad.any():
        raise ValueError(f"{path} holds NaN or inf for token {int(bad.argmax())}")
    return table, known


def _from_text(path: Path, number: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    table, known = np.zeros((len(number), 0), dtype=np.float32), np.zeros(len(number), dtype=bool)
    for line, (word, numbers) in enumerate(_lines(path), 1):
        if not table.shape[1]:
            table = np.zeros((len(number), len(numbers)), dtype=np.float32)
        if len(numbers) != table.shape[1]:
            raise ValueError(f"{path}, line {line}: {len(numbers)} numbers, but {table.shape[1]} in the lines before")
        place = number.get(word)
        if place is None or known[place]:
            continue
        try:
            table[place] = np.array(numbers, dtype=np.float32)
        except ValueError:
            raise ValueError(f"{path}, line {line}: the vector of {word!r} holds what is no number") from None
        if not np.isfinite(table[place]).all():
            raise ValueError(f"{path}, line {line}: the vector of {word!r} holds NaN or inf")
        known[place] = True
    return table, known


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    if not path.is_file():
        raise ValueError(f"vectors must be a file, got {str(path)!r}")
    with path.open(encoding="utf-8") as file:
        try:
            for line, content in enumerate(file, 1):
                word, *numbers = content.rstrip("\n").split(" ")
                if not word or not numbers:
                    raise ValueError(f"{path}, line {line}: must be a word and its numbers, got {content[:40]!r}")
                yield word, numbers
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error.reason}") from None


class TokenTable(torch.nn.Module):
    """One row per token, learned, given and learned on, or given and fixed.

    Args:
        vocabulary: V >= 2.
        width: D; of given vectors, theirs where None, else 64.
        words: the tokens, to look up ``vectors``.
        vectors: a file for :func:`vectors_for`, or a tensor [V, D]; None draws the rows.
        vector_words: the list of the words of a matrix.
        frozen: whether the rows stay as given; those of tokens without a vector stay as they were drawn.

    Raises:
        ValueError: if sizes do not fit, or a file is none of vectors.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int | None = None,
        *,
        words: Sequence[str] | None = None,
        vectors: str | Path | Tensor | None = None,
        vector_words: str | Path | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.vocabulary = _checks.integer("vocabulary", vocabulary, minimum=2)
        known = None
        if isinstance(vectors, Tensor):
            if vectors.dim() != 2 or len(vectors) != vocabulary or not bool(vectors.isfinite().all()):
                raise ValueError(f"vectors must be finite numbers [{vocabulary}, D], got {vectors.dtype} {list(vectors.shape)}")
            known = torch.ones(vocabulary, dtype=torch.bool)
        elif vectors is not None:
            if words is None and not str(vectors).endswith(".npy"):
                raise ValueError(f"vectors of words need tokens that are words, got {str(vectors)!r} for numbers 0 … {vocabulary - 1}")
            vectors, known = vectors_for(words or [str(i) for i in range(vocabulary)], vectors, words=vector_words)
        if vectors is not None and width not in (None, vectors.size(1)):
            raise ValueError(f"width must be that of the vectors, {vectors.size(1)}, or None, got {width}")
        self.width = vectors.size(1) if vectors is not None else _checks.integer("width", 64 if width is None else width, minimum=1)
        self.frozen = _checks.flag("frozen", frozen)
        self._given = None if vectors is None else (vectors.to(torch.get_default_dtype()), known)
        table = torch.empty(self.vocabulary, self.width)
        if frozen:
            self.register_buffer("weight", table)
        else:
            self.weight = torch.nn.Parameter(table)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rows of unit variance, of given vectors too: they are scaled together, so that their directions and relations stay."""
        with torch.no_grad():
            torch.nn.init.normal_(self.weight)
            if self._given is not None:
                vectors, known = self._given
                assert known is not None
                scaled = vectors / vectors[known].std().clamp(min=1e-12)
                self.weight.copy_(torch.where(known.unsqueeze(1), scaled, self.weight))

    def extra_repr(self) -> str:
        return f"{self.vocabulary}, width={self.width}{', frozen' if self.frozen else ''}"
