/** The client. */

import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";

import { Calls } from "./calls.js";
import { ModelNotFound } from "./errors.js";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "./gen/grpc_health/v1/health_pb.js";
import { ChatSchema } from "./gen/mlx_grpc/v1/chat_pb.js";
import { GenerateRequestSchema } from "./gen/mlx_grpc/v1/generation_pb.js";
import { InferenceService, type GenerateResponse } from "./gen/mlx_grpc/v1/inference_service_pb.js";
import type { Model } from "./gen/mlx_grpc/v1/model_pb.js";
import { ModelService } from "./gen/mlx_grpc/v1/model_service_pb.js";
import { ServerService, type GetServerInfoResponse } from "./gen/mlx_grpc/v1/server_service_pb.js";
import {
  TokenizerService,
  type CountTokensRequestSchema,
  type CountTokensResponse,
  type DetokenizeRequestSchema,
  type DetokenizeResponse,
  type RenderChatRequestSchema,
  type RenderChatResponse,
  type TokenizeRequestSchema,
  type TokenizeResponse,
} from "./gen/mlx_grpc/v1/tokenizer_service_pb.js";
import type { GenerateRequestInit, MessageInit } from "./messages.js";
import { DEFAULT_TARGET, type CallOptions, type ClientOptions } from "./options.js";
import { Stream } from "./stream.js";

/** SERVING, NOT_SERVING or SERVICE_UNKNOWN. */
export type HealthStatus = keyof typeof ServingStatus;

/** A connection to one server, made with the first call. What fails throws an MlxGrpcError. */
export class Client {
  readonly #calls: Calls;

  /** Throws a TypeError for options that contradict each other. */
  constructor(target: string = DEFAULT_TARGET, options: ClientOptions = {}) {
    this.#calls = new Calls(target, options);
  }

  /** Answers once, when all is done. */
  generate(request: GenerateRequestInit, options: CallOptions = {}): Promise<GenerateResponse> {
    return this.#calls.unary(InferenceService.method.generate, request, options);
  }

  /** Generates and gives what comes as it comes. */
  stream(request: GenerateRequestInit, options: CallOptions = {}): Stream {
    const { incoming, ended } = this.#calls.serverStream(InferenceService.method.streamGenerate, request, options);
    return new Stream(incoming, ended);
  }

  /** `stream` with these messages as the request's chat. The request is not changed. */
  chat(messages: MessageInit[], request: GenerateRequestInit = {}, options: CallOptions = {}): Stream {
    const filled = clone(GenerateRequestSchema, create(GenerateRequestSchema, request));
    const settings = filled.input.case === "chat" ? filled.input.value : {};
    filled.input = { case: "chat", value: create(ChatSchema, { ...settings, messages }) };
    return this.stream(filled, options);
  }

  /** Turns text or a conversation into token ids. */
  tokenize(request: MessageInitShape<typeof TokenizeRequestSchema>, options: CallOptions = {}): Promise<TokenizeResponse> {
    return this.#calls.unary(TokenizerService.method.tokenize, request, options);
  }

  /** Turns token ids into text. */
  detokenize(request: MessageInitShape<typeof DetokenizeRequestSchema>, options: CallOptions = {}): Promise<DetokenizeResponse> {
    return this.#calls.unary(TokenizerService.method.detokenize, request, options);
  }

  /** Counts the tokens of a text or a conversation, as generation would. */
  countTokens(request: MessageInitShape<typeof CountTokensRequestSchema>, options: CallOptions = {}): Promise<CountTokensResponse> {
    return this.#calls.unary(TokenizerService.method.countTokens, request, options);
  }

  /** Renders a conversation with the model's template. */
  renderChat(request: MessageInitShape<typeof RenderChatRequestSchema>, options: CallOptions = {}): Promise<RenderChatResponse> {
    return this.#calls.unary(TokenizerService.method.renderChat, request, options);
  }

  /** All models that the server knows, by id. */
  async listModels(options: CallOptions = {}): Promise<Model[]> {
    const models: Model[] = [];
    for (let pageToken = ""; ; ) {
      const page = await this.#calls.unary(ModelService.method.listModels, pageToken ? { pageToken } : {}, options);
      models.push(...page.models);
      pageToken = page.nextPageToken;
      if (!pageToken) return models;
    }
  }

  /** One model; "" is the server's default. */
  async getModel(model = "", options: CallOptions = {}): Promise<Model> {
    return (await this.#calls.unary(ModelService.method.getModel, model ? { model } : {}, options)).model!;
  }

  /** Starts to load a model and returns at once: ask `getModel` or `health("models/ID")` how far it is. */
  async loadModel(model: string, options: CallOptions = {}): Promise<Model> {
    return (await this.#calls.unary(ModelService.method.loadModel, { model }, options)).model!;
  }

  /** Lets a model finish its requests (or with `force`, ends them), then frees its memory; returns at once. */
  async unloadModel(model: string, options: CallOptions & { force?: boolean } = {}): Promise<Model> {
    const { force = false, ...rest } = options;
    return (await this.#calls.unary(ModelService.method.unloadModel, { model, force }, rest)).model!;
  }

  /** The server's versions, device, limits and features. */
  serverInfo(options: CallOptions = {}): Promise<GetServerInfoResponse> {
    return this.#calls.unary(ServerService.method.getServerInfo, {}, options);
  }

  /** How the process ("") is, or "mlx_grpc.v1.InferenceService", or "models/ID". */
  async health(service = "", options: CallOptions = {}): Promise<HealthStatus> {
    try {
      const { status } = await this.#calls.unary(Health.method.check, { service }, options);
      return ServingStatus[status] as HealthStatus;
    } catch (error) {
      if (error instanceof ModelNotFound) return "SERVICE_UNKNOWN";
      throw error;
    }
  }

  /** Cancels what still runs and closes the connection. May be called twice. */
  close(): void {
    this.#calls.close();
  }
}
