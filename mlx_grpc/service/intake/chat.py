"""Conversations to prompts, by the model's own chat template.

What the template does is known from trying it when the model was loaded (`templates`): a developer's turn that it does
not know becomes a system turn, typed parts are passed where it takes them, and a turn that it would leave out is
refused. What it does to the words of a turn is its own business: it may trim, quote and split them, drop old reasoning,
and act on control words such as `/no_think`.

A model's template runs in jinja's sandbox, as transformers has it, in a process of its own with limits of time and
memory (`templates.child_template`). What goes in and comes out is bounded here.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from mlx_grpc.errors import InvalidField, UnsupportedField
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake.templates.chat_template import Template, nobody_left
from mlx_grpc.service.intake.templates.frames import MAX_RENDERED_CHARS
from mlx_grpc.service.intake.templates.probe import reason_of
from mlx_grpc.service.intake.templates.traits import blamed_position, passed_role
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.validate import check_unicode

MAX_MESSAGES = 4096
MAX_TEMPLATE_ARGS_BYTES = 64 * 1024
MAX_CHAT_CHARS = MAX_RENDERED_CHARS
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


def render_chat(chat: Chat, tokenizer: Tokenizer, has_left: Callable[[], bool] = nobody_left) -> str:
    """The conversation as a prompt, open for the assistant's next turn or in the middle of its last. Blocks; when
    `has_left` says that nobody wants it any more, it ends soon.

    Raises InvalidField on the part at fault (on `chat` where the template itself refuses and no message can be named,
    or passes a limit), UnsupportedField for a model without a template, or with one that passes a limit always.
    """
    template = tokenizer.chat_template
    if template is None:
        raise UnsupportedField("this model has no chat template; send a prompt instead", field="chat")
    if template.fault:
        raise UnsupportedField(
            f"this model's chat template cannot be used: {template.fault}; send a prompt instead", field="chat"
        )
    _check_messages(chat.messages)
    if chat.continue_final_message and chat.messages[-1].role != "assistant":
        raise InvalidField(
            f"only an assistant's message can be continued, the last is of role {chat.messages[-1].role}",
            field="chat.continue_final_message",
        )
    _check_template_args(chat.template_args_json)
    return _run_template(chat, template, has_left)


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


def _check_template_args(template_args_json: str) -> None:
    field = "chat.template_args_json"
    if not template_args_json:
        return
    if len(template_args_json) > MAX_TEMPLATE_ARGS_BYTES:
        raise InvalidField(f"template arguments are at most {MAX_TEMPLATE_ARGS_BYTES} bytes", field=field)
    try:
        args = json.loads(template_args_json)
    except (ValueError, RecursionError) as error:
        raise InvalidField(f"not valid JSON: {reason_of(error)}", field=field) from error
    if not isinstance(args, dict):
        raise InvalidField("not a JSON object", field=field)
    for name in args:
        # Names with an underscore in front are jinja's own.
        if name in RESERVED_ARGS or name.startswith("_") or not name.isidentifier():
            raise InvalidField(f"{name[:64]!r} cannot be a template argument", field=field)


def _run_template(chat: Chat, template: Template, has_left: Callable[[], bool]) -> str:
    """The rendered text, once it is sure that it holds every turn."""
    turns = [(message.role, message.content) for message in chat.messages]
    written = template.write(turns, chat.template_args_json, chat.continue_final_message, has_left)
    if written.stopped:
        raise InvalidField(f"the model's chat template was stopped: {written.stopped}", field="chat")
    if written.error:
        raise _refusal(chat, template, written.error)
    if written.lost is not None:
        raise _left_out(chat, template, min(written.lost, len(turns) - 1))
    if len(written.text) > MAX_CHAT_CHARS:
        raise InvalidField(f"the rendered chat has more than {MAX_CHAT_CHARS} characters", field="chat")
    check_unicode(written.text, "chat.template_args_json")
    return written.text


def _refusal(chat: Chat, template: Template, reason: str) -> InvalidField:
    """The template's own words, on the message that it is most likely about."""
    roles = [passed_role(template.traits, message.role) for message in chat.messages]
    position = blamed_position(template.traits, roles)
    if position is None:
        return InvalidField(f"the model's chat template refused it: {reason}", field="chat")
    return InvalidField(
        f"the model's chat template refuses this message of role {chat.messages[position].role}: {reason}",
        field=f"chat.messages[{position}].role",
    )


def _left_out(chat: Chat, template: Template, position: int) -> InvalidField:
    role = chat.messages[position].role
    known = passed_role(template.traits, role) in template.traits.content
    return InvalidField(
        f"the model's chat template leaves this message of role {role} out{' in this place' if known else ''}",
        field=f"chat.messages[{position}].role",
    )
