"""What does a model read? A chat as its tokens, the beginning of text once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergecore.errors import ModelError, RecipeError
from mergecore.evaluate.backends import why_not
from mergecore.tokenizer import chat_template

PLAIN = "none"
"""Instead of a template: the words of the user as they are, for models that do not chat."""


class TemplateRefusalError(RecipeError):
    """A chat template does not take a chat: a role that it does not know, for example."""


class Chat:
    """A model's tokenizer and chat template."""

    def __init__(self, folder: Path, reference: str, template: str | None = None) -> None:
        """Loads the tokenizer.

        Args:
            folder: The model's folder.
            reference: What messages call it.
            template: `none`, a template's name, a file, or a template, instead of its own.

        Raises:
            ModelError: It has no tokenizer, or no template and none is given.
            RecipeError: The template is neither a name, a file nor a template.
        """
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{reference}: its tokenizer cannot be loaded: {why_not(error)}"
            ) from error
        self.plain = template == PLAIN
        if template is not None and not self.plain:
            self.tokenizer.chat_template = _text(template)
        if not self.plain and not self.tokenizer.chat_template:
            raise ModelError(
                f"{reference}: has no chat template; give --chat-template with a name"
                f" ({', '.join(chat_template.names())}), a file, or `none` for plain text"
            )

    def tokens(self, messages: list[dict[str, str]], *, answered: bool = False) -> list[int]:
        """The ids of a chat, with the opening of the answer unless it is there.

        Raises:
            TemplateRefusalError: The template does not take the chat.
        """
        if self.plain:
            text = "\n".join(turn["content"] for turn in messages)
            return list(self.tokenizer(text)["input_ids"])
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not answered
            )
        except TemplateError as error:
            said = " ".join(str(error).split())[:200]
            raise TemplateRefusalError(f"the chat template refuses it: {said}") from error
        # Most templates write the beginning of text themselves: the tokenizer must not, again.
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        start = self.tokenizer.bos_token_id
        while start is not None and ids[:2] == [start, start]:
            del ids[0]
        return ids

    def text(self, ids: list[int]) -> str:
        """The words of an answer, without special tokens."""
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


def _text(template: str) -> str:
    path = Path(template).expanduser()
    if "{" not in template and path.is_file():
        return path.read_text("utf-8")
    if template == "auto":
        raise RecipeError("--chat-template auto is for merges; give a name, a file or a template")
    return str(chat_template.chosen(template, []))
