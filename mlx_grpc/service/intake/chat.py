"""Conversations to prompts, by the model's own chat template.

What the template does is known from trying it when the model was loaded (`templates`): a developer's turn that it does
not know becomes a system turn, typed parts are passed where it takes them, and a turn that it would leave out is
refused. What it does to the words of a turn is its own business: it may trim, quote and split them, drop old reasoning,
and act on control words such as `/no_think`.

Templates run in jinja's sandbox, as transformers has it: they cannot reach files or the interpreter, and their `range`
is bounded. What goes in and comes out is bounded here.
"""

from __future__ import annotations

import json
from typing import Any

from mlx_grpc.errors import InvalidField, UnsupportedField
from mlx_grpc.request import Chat, Message
from mlx_grpc.service.intake.templates.chat_template import ChatTemplate, LastMessageLost
from mlx_grpc.service.intake.templates.probe import reason_of
from mlx_grpc.service.intake.templates.traits import blamed_position, passed_message, passed_role
from mlx_grpc.service.intake.tokenizer import Tokenizer
from mlx_grpc.service.intake.validate import check_unicode

MAX_MESSAGES = 4096
MAX_TEMPLATE_ARGS_BYTES = 64 * 1024
MAX_CHAT_CHARS = 4 * 1024 * 1024
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


def render_chat(chat: Chat, tokenizer: Tokenizer) -> str:
    """The conversation as a prompt, open for the assistant's next turn or in the middle of its last.

    Raises InvalidField on the part at fault (on `chat` where the template itself refuses and no message can be named),
    UnsupportedField for a model without a template, or with one that does not end.
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
    text = _run_template(chat, template, _template_args(chat.template_args_json))
    if len(text) > MAX_CHAT_CHARS:
        raise InvalidField(f"the rendered chat has more than {MAX_CHAT_CHARS} characters", field="chat")
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
        raise InvalidField(f"not valid JSON: {reason_of(error)}", field=field) from error
    if not isinstance(args, dict):
        raise InvalidField("not a JSON object", field=field)
    for name in args:
        # Names with an underscore in front are jinja's own.
        if name in RESERVED_ARGS or name.startswith("_") or not name.isidentifier():
            raise InvalidField(f"{name[:64]!r} cannot be a template argument", field=field)
    return args


def _run_template(chat: Chat, template: ChatTemplate, args: dict[str, Any]) -> str:
    """The rendered text, once it is sure that it holds every turn."""
    continued = chat.continue_final_message
    messages = [passed_message(template.traits, message) for message in chat.messages]
    trial = template.try_roles([message["role"] for message in messages], chat.template_args_json, continued)
    if trial.lost is None:
        try:
            text = template.render(messages, args, continued)
        except LastMessageLost as error:
            raise _left_out(chat, template, len(messages) - 1) from error
        except Exception as error:  # a template can raise anything: its own error, TypeError, OverflowError
            raise _refusal(chat, template, reason_of(error)) from error
        check_unicode(text, "chat.template_args_json")
        if trial.error:
            trial = template.try_messages(messages, args, continued)
    if trial.error:
        raise _refusal(chat, template, trial.error)
    if trial.lost is not None:
        raise _left_out(chat, template, trial.lost)
    return text


def _refusal(chat: Chat, template: ChatTemplate, reason: str) -> InvalidField:
    """The template's own words, on the message that it is most likely about."""
    roles = [passed_role(template.traits, message.role) for message in chat.messages]
    position = blamed_position(template.traits, roles)
    if position is None:
        return InvalidField(f"the model's chat template refused it: {reason}", field="chat")
    return InvalidField(
        f"the model's chat template refuses this message of role {chat.messages[position].role}: {reason}",
        field=f"chat.messages[{position}].role",
    )


def _left_out(chat: Chat, template: ChatTemplate, position: int) -> InvalidField:
    role = chat.messages[position].role
    known = passed_role(template.traits, role) in template.traits.content
    return InvalidField(
        f"the model's chat template leaves this message of role {role} out{' in this place' if known else ''}",
        field=f"chat.messages[{position}].role",
    )
