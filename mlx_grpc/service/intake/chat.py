"""Conversations to prompts, by the model's own chat template.

Roles are passed to the template as they are: a template that knows no developer (or tool, or system) role
says so by raising. Where it leaves the message out in silence instead, the request is refused here. Templates
run in jinja's sandbox, as transformers has it: they cannot reach files or the interpreter, and their `range`
is bounded. What goes in and comes out is bounded here.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mlx_grpc.errors import InvalidField, UnsupportedField
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.validate import check_unicode

MAX_MESSAGES = 4096
MAX_TEMPLATE_ARGS_BYTES = 64 * 1024
MAX_CHAT_CHARS = 4 * 1024 * 1024
MAX_REASON_CHARS = 200
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})

# What the request itself says, and what transformers takes for its own arguments.
RESERVED_ARGS = frozenset(
    (
        *("self", "messages", "conversation", "conversations", "tools", "documents", "chat_template"),
        *(
            "add_generation_prompt",
            "continue_final_message",
            "tokenize",
            "sanitize_control_tokens",
            "padding",
        ),
        *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        "tokenizer_kwargs",
    )
)
_WORD = re.compile(r"\w+")


def render_chat(chat: Chat, tokenizer: Tokenizer) -> str:
    """The conversation as a prompt, open for the assistant's next turn or in the middle of its last.

    Raises InvalidField on the part at fault (on `chat` where the template itself refuses), UnsupportedField
    for a model without a template.
    """
    if not tokenizer.has_chat_template:
        raise UnsupportedField("this model has no chat template; send a prompt instead", field="chat")
    _check_messages(chat.messages)
    if chat.continue_final_message and chat.messages[-1].role != "assistant":
        raise InvalidField(
            f"only an assistant's message can be continued, the last is of role {chat.messages[-1].role}",
            field="chat.continue_final_message",
        )
    text = _run_template(chat, tokenizer, _template_args(chat.template_args_json))
    if len(text) > MAX_CHAT_CHARS:
        raise InvalidField(f"the rendered chat has more than {MAX_CHAT_CHARS} characters", field="chat")
    _check_nothing_lost(chat.messages, text)
    return text


def _check_messages(messages: tuple[Message, ...]) -> None:
    if not messages:
        raise InvalidField("a chat needs at least one message", field="chat.messages")
    if len(messages) > MAX_MESSAGES:
        raise InvalidField(f"a chat has at most {MAX_MESSAGES} messages", field="chat.messages")
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            roles = ", ".join(sorted(ROLES))
            raise InvalidField(
                f"a role is one of {roles}, not {message.role[:32]!r}", field=f"chat.messages[{index}].role"
            )
        check_unicode(message.content, f"chat.messages[{index}].content")
    if sum(len(message.content) for message in messages) > MAX_CHAT_CHARS:
        raise InvalidField(f"a chat has at most {MAX_CHAT_CHARS} characters", field="chat.messages")
    if not any(message.role == "user" for message in messages):
        raise InvalidField("a chat needs a message of role user", field="chat.messages")


def _template_args(template_args_json: str) -> dict[str, Any]:
    field = "chat.template_args_json"
    if not template_args_json:
        return {}
    if len(template_args_json) > MAX_TEMPLATE_ARGS_BYTES:
        raise InvalidField(f"template arguments are at most {MAX_TEMPLATE_ARGS_BYTES} bytes", field=field)
    try:
        args = json.loads(template_args_json)
    except (ValueError, RecursionError) as error:
        raise InvalidField(f"not valid JSON: {_reason(error)}", field=field) from error
    if not isinstance(args, dict):
        raise InvalidField("not a JSON object", field=field)
    for name in args:
        # Names with an underscore in front are jinja's own.
        if name in RESERVED_ARGS or name.startswith("_") or not name.isidentifier():
            raise InvalidField(f"{name[:64]!r} cannot be a template argument", field=field)
    return args


def _run_template(chat: Chat, tokenizer: Tokenizer, args: dict[str, Any]) -> str:
    messages = [{"role": message.role, "content": message.content} for message in chat.messages]
    try:
        text = tokenizer.render(
            messages,
            args,
            add_generation_prompt=not chat.continue_final_message,
            continue_final_message=chat.continue_final_message,
        )
    except Exception as error:  # a template can raise anything: its own error, TypeError, OverflowError
        raise InvalidField(f"the model's chat template refused it: {_reason(error)}", field="chat") from error
    check_unicode(text, "chat.template_args_json")
    return text


def _check_nothing_lost(messages: tuple[Message, ...], text: str) -> None:
    """Look for each message's longest word, since templates trim, quote and split contents. The assistant's
    turns may be cut: templates drop old reasoning."""
    for index, message in enumerate(messages):
        words = _WORD.findall(message.content)
        if message.role != "assistant" and words and max(words, key=len) not in text:
            raise InvalidField(
                f"the model's chat template leaves this message of role {message.role} out",
                field=f"chat.messages[{index}].role",
            )


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:MAX_REASON_CHARS]
