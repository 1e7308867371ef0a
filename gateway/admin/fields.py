"""Form fields for what the models keep as JSON: words, headers, whole objects."""

from __future__ import annotations

import json
import re
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class WordsField(forms.CharField):
    """A list of words, written with commas or spaces between them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextInputWidget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.clean(data) != (initial or [])

    def clean(self, value: Any) -> list[str]:
        return str(value or "").replace(",", " ").split()


class HeadersField(forms.CharField):
    """`Name: value` on each line; pairs in their order."""

    def __init__(self, *, rows: int = 3, **kwargs: Any) -> None:
        super().__init__(required=False, strip=False, widget=_code(rows), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return "\n".join(f"{name}: {text}" for name, text in value.items())
        return value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return str(self.prepare_value(initial) or "").split() != str(data or "").split()

    def clean(self, value: Any) -> list[tuple[str, str]]:
        found = []
        for number, line in enumerate(str(value or "").splitlines(), 1):
            name, colon, text = line.partition(":")
            if not line.strip():
                continue
            if not colon or not _TOKEN.fullmatch(name.strip()):
                raise forms.ValidationError(f"Line {number} is not a header: write Name: value.")
            found.append((name.strip(), text.strip()))
        return found


class HeaderMapField(HeadersField):
    """The same as a mapping, for headers that may stand there once."""

    def clean(self, value: Any) -> Any:
        pairs = super().clean(value)
        names = [name.lower() for name, _ in pairs]
        for name, _ in pairs:
            if names.count(name.lower()) > 1:
                raise forms.ValidationError(f"{name} stands there twice.")
        return dict(pairs)


class JsonField(forms.JSONField):
    """A JSON object, shown so that it can be read. Empty: {}."""

    def __init__(self, *, rows: int = 6, **kwargs: Any) -> None:
        super().__init__(required=False, widget=_code(rows), **kwargs)

    def bound_data(self, data: Any, initial: Any) -> Any:
        return initial if self.disabled or data is None else data

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, str):  # as it was sent, when it is shown again with what is wrong
            return value
        return json.dumps(value, indent=2, ensure_ascii=False) if value else ""

    def clean(self, value: Any) -> Any:
        try:
            found = json.loads(value) if value and value.strip() else {}
        except ValueError as error:
            raise forms.ValidationError(f"This is not JSON: {error}") from error
        except RecursionError as error:
            raise forms.ValidationError("This is nested too deep.") from error
        if not isinstance(found, dict):
            raise forms.ValidationError("This is a JSON object: {…}")
        if not _is_text(found):
            raise forms.ValidationError("This holds half of a character (\\ud800 to \\udfff).")
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != (initial or {}))
        except forms.ValidationError:
            return True


def _is_text(found: Any) -> bool:
    """Whether it can be written down: JSON can spell what no encoding has, and then no page can show what is wrong with it."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _code(rows: int) -> UnfoldAdminTextareaWidget:
    return UnfoldAdminTextareaWidget(attrs={"rows": rows, "spellcheck": "false", "class": "brain-code"})
