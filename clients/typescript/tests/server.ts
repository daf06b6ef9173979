/** A server of which each test says how it answers. */

import { create, fromBinary, toBinary, type DescMessage, type DescService, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import type { TestContext } from "node:test";

import { BadRequestSchema, ErrorInfoSchema, ResourceInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";
import { Health } from "../src/gen/grpc_health/v1/health_pb.js";
import {
  Client,
  InferenceService,
  ModelService,
  StreamGenerateResponseSchema,
  type ClientOptions,
  type GenerateRequest,
  type GenerateResponseSchema,
  type ListModelsRequest,
  type ListModelsResponseSchema,
} from "../src/index.js";

export type Event = MessageInitShape<typeof StreamGenerateResponseSchema>;
type StreamCall = grpc.ServerWritableStream<GenerateRequest, Event>;

interface Handlers {
  generate?: (call: grpc.ServerUnaryCall<GenerateRequest, unknown>) => MessageInitShape<typeof GenerateResponseSchema>;
  stream?: (call: StreamCall) => void;
  list?: (request: ListModelsRequest) => MessageInitShape<typeof ListModelsResponseSchema>;
}

export class ScriptedServer {
  /** The headers of each attempt that arrived, and its deadline. */
  readonly calls: { headers: grpc.Metadata; deadline: grpc.Deadline }[] = [];
  readonly #server = new grpc.Server();

  constructor(handlers: Handlers) {
    this.#server.addService(definition(InferenceService), {
      Generate: (call: grpc.ServerUnaryCall<GenerateRequest, unknown>, answer: grpc.sendUnaryData<unknown>) => {
        this.calls.push({ headers: call.metadata, deadline: call.getDeadline() });
        try {
          answer(null, handlers.generate!(call));
        } catch (error) {
          answer(error as grpc.ServiceError);
        }
      },
      StreamGenerate: (call: StreamCall) => {
        this.calls.push({ headers: call.metadata, deadline: call.getDeadline() });
        handlers.stream!(call);
      },
    });
    this.#server.addService(definition(ModelService), {
      ListModels: (call: grpc.ServerUnaryCall<ListModelsRequest, unknown>, answer: grpc.sendUnaryData<unknown>) =>
        answer(null, handlers.list!(call.request)),
    });
    this.#server.addService(definition(Health), {
      Check: (call: grpc.ServerUnaryCall<{ service: string }, unknown>, answer: grpc.sendUnaryData<unknown>) =>
        call.request.service ? answer(refusal(grpc.status.NOT_FOUND)) : answer(null, { status: 1 }),
    });
  }

  /** Starts the server and gives its address; it ends with the test. */
  async serve(test: TestContext, credentials = grpc.ServerCredentials.createInsecure()): Promise<string> {
    const port = await new Promise<number>((resolve, reject) =>
      this.#server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
    );
    test.after(() => this.#server.forceShutdown());
    return `127.0.0.1:${port}`;
  }

  /** Starts the server and gives a client of it. */
  async open(test: TestContext, options: ClientOptions = {}): Promise<Client> {
    return open(test, await this.serve(test), options);
  }
}

/** A client that is closed with the test. */
export function open(test: TestContext, target: string, options: ClientOptions): Client {
  const client = new Client(target, options);
  test.after(() => client.close());
  return client;
}

/** A server that answers every stream with these events. */
export function sending(...events: Event[]): ScriptedServer {
  return new ScriptedServer({
    stream: (call) => {
      for (const event of events) call.write(event);
      call.end();
    },
  });
}

/** A server that refuses the first calls with this and answers the rest. */
export function refusing(times: number, error: Partial<grpc.ServiceError>): ScriptedServer {
  const server: ScriptedServer = new ScriptedServer({
    generate: () => {
      if (server.calls.length <= times) throw error;
      return { model: "m" };
    },
  });
  return server;
}

const DETAILS = { info: ErrorInfoSchema, retry: RetryInfoSchema, request: BadRequestSchema, resource: ResourceInfoSchema };
export type Details = { [Name in keyof typeof DETAILS]?: MessageInitShape<(typeof DETAILS)[Name]> };

/** A status with google.rpc's details and trailing metadata. */
export function refusal(code: grpc.status, details: Details = {}, trailing: Record<string, string> = {}): Partial<grpc.ServiceError> {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(trailing)) metadata.set(key, value);
  const packed = Object.entries(details).map(([name, init]) => {
    const schema: DescMessage = DETAILS[name as keyof typeof DETAILS];
    return anyPack(schema, create(schema, init));
  });
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, details: packed }))));
  return { code, details: "no", metadata };
}

function definition(service: DescService): grpc.ServiceDefinition {
  return Object.fromEntries(
    service.methods.map(({ name, input, output, methodKind }) => [
      name,
      {
        path: `/${service.typeName}/${name}`,
        requestStream: false,
        responseStream: methodKind === "server_streaming",
        requestSerialize: (message: Record<string, unknown>) => bytes(input, message),
        requestDeserialize: (data: Buffer) => fromBinary(input, data),
        responseSerialize: (message: Record<string, unknown>) => bytes(output, message),
        responseDeserialize: (data: Buffer) => fromBinary(output, data),
      },
    ]),
  );
}

function bytes(schema: DescMessage, message: Record<string, unknown>): Buffer {
  return Buffer.from(toBinary(schema, create(schema, message)));
}

export const STARTED: Event = { event: { case: "started", value: { generationId: "g", requestId: "r", model: "m", seed: 2n ** 60n } } };
export const FINISHED: Event = { event: { case: "finished", value: { finishReason: 1 } } };
export const COMPLETED: Event = { event: { case: "completed", value: { usage: { completionTokens: 3 } } } };

export function delta(text: string, ...tokenIds: number[]): Event {
  return { event: { case: "delta", value: { text, tokenIds } } };
}
