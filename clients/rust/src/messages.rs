//! Short words for the usual messages.

use crate::v1::{ContentPart, GenerateRequest, Message, Role, content_part::Part, generate_request::Input};

/// A request to continue this text; `..prompt(text)` sets more.
pub fn prompt(text: impl Into<String>) -> GenerateRequest {
    GenerateRequest { input: Some(Input::Prompt(text.into())), ..Default::default() }
}

/// Instructions that hold for the whole conversation.
pub fn system(text: impl Into<String>) -> Message {
    message(Role::System, text)
}

/// A turn of the person.
pub fn user(text: impl Into<String>) -> Message {
    message(Role::User, text)
}

/// A turn of the model.
pub fn assistant(text: impl Into<String>) -> Message {
    message(Role::Assistant, text)
}

fn message(role: Role, text: impl Into<String>) -> Message {
    Message { role: role.into(), content: vec![ContentPart { part: Some(Part::Text(text.into())) }] }
}
