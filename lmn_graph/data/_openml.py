"""OpenML's data sets in scikit-learn's cache: nothing is fetched unasked, damaged copies are refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .base import MissingData


def fetch(name: str, number: int, root: Path, download: bool, alternative: str, dtype: str) -> Any:
    """The bunch (data [n, F], target [n], feature_names) of OpenML's data set ``number`` in ``root``/openml, all of it as ``dtype``.

    Args:
        name: for messages.
        download: fetch what is missing; otherwise nothing is fetched.
        alternative: what else the user can do, for messages.

    Raises:
        ValueError: if it is not there (``MissingData``), is damaged, or cannot be fetched.
    """
    from sklearn.datasets import fetch_openml

    if not download:
        _check_cache(name, number, root, alternative)
    try:
        # All columns as one type: less memory, and scikit-learn 1.9 trips over nominal numbers with pandas 3.1 (its issue 34892).
        return fetch_openml(data_id=number, data_home=str(root), as_frame=False, read_csv_kwargs={"dtype": dtype})
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be had from OpenML into {root}: {error}") from error


def _check_cache(name: str, number: int, root: Path, alternative: str) -> None:
    """Refuse a cache from which scikit-learn would have to download something."""
    site = root / "openml" / "openml.org"
    api = "api/v1/json/data"
    paths = [site / f"{api}{kind}/{number}.gz" for kind in ("", "/features", "/qualities")]
    advice = f"pass download=True to fetch {name} (data set {number}) from openml.org, or {alternative}"
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        try:
            description = json.loads(gzip.decompress(paths[0].read_bytes()))["data_set_description"]
            data = site / (urlparse(description["url"]).path.lstrip("/") + ".gz")
            if data.is_file():
                with gzip.open(data) as file:
                    whole = hashlib.file_digest(file, "md5").hexdigest() == description["md5_checksum"]
                if not whole:
                    raise ValueError("its checksum is wrong")
                return
            missing = [data]
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"root {str(root)!r}: the copy in {site} is damaged ({error!r}); {advice}") from error
    raise MissingData(f"root {str(root)!r}: {', '.join(map(str, missing))} is missing; {advice}")
