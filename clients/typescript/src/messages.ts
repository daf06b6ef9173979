/** The usual requests and messages, short. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import { MessageSchema, Role, type Message } from "./gen/mlx_grpc/v1/chat_pb.js";
import { GenerateRequestSchema, type GenerateRequest } from "./gen/mlx_grpc/v1/generation_pb.js";

/** A GenerateRequest, or its fields as a plain object. */
export type GenerateRequestInit = MessageInitShape<typeof GenerateRequestSchema>;

/** A Message, or its fields as a plain object. */
export type MessageInit = MessageInitShape<typeof MessageSchema>;

/** Asks to continue a text: `prompt("Once upon", { stop: { maxTokens: 64 } })`. */
export function prompt(text: string, settings: GenerateRequestInit = {}): GenerateRequest {
  return create(GenerateRequestSchema, { ...settings, input: { case: "prompt", value: text } });
}

/** A turn with instructions that hold for the whole conversation. */
export function system(text: string): Message {
  return message(Role.SYSTEM, text);
}

/** A turn of the person. */
export function user(text: string): Message {
  return message(Role.USER, text);
}

/** A turn of the model. */
export function assistant(text: string): Message {
  return message(Role.ASSISTANT, text);
}

function message(role: Role, text: string): Message {
  return create(MessageSchema, { role, content: [{ part: { case: "text", value: text } }] });
}
