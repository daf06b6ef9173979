package io.github.mlxgrpc.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Turns text into a model's tokens and back, with the tokenizer and the chat template that generation uses.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class TokenizerServiceGrpc {

  private TokenizerServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "mlx_grpc.v1.TokenizerService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.TokenizeRequest,
      io.github.mlxgrpc.v1.TokenizeResponse> getTokenizeMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Tokenize",
      requestType = io.github.mlxgrpc.v1.TokenizeRequest.class,
      responseType = io.github.mlxgrpc.v1.TokenizeResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.TokenizeRequest,
      io.github.mlxgrpc.v1.TokenizeResponse> getTokenizeMethod() {
    io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.TokenizeRequest, io.github.mlxgrpc.v1.TokenizeResponse> getTokenizeMethod;
    if ((getTokenizeMethod = TokenizerServiceGrpc.getTokenizeMethod) == null) {
      synchronized (TokenizerServiceGrpc.class) {
        if ((getTokenizeMethod = TokenizerServiceGrpc.getTokenizeMethod) == null) {
          TokenizerServiceGrpc.getTokenizeMethod = getTokenizeMethod =
              io.grpc.MethodDescriptor.<io.github.mlxgrpc.v1.TokenizeRequest, io.github.mlxgrpc.v1.TokenizeResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Tokenize"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.TokenizeRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.TokenizeResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenizerServiceMethodDescriptorSupplier("Tokenize"))
              .build();
        }
      }
    }
    return getTokenizeMethod;
  }

  private static volatile io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.DetokenizeRequest,
      io.github.mlxgrpc.v1.DetokenizeResponse> getDetokenizeMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "Detokenize",
      requestType = io.github.mlxgrpc.v1.DetokenizeRequest.class,
      responseType = io.github.mlxgrpc.v1.DetokenizeResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.DetokenizeRequest,
      io.github.mlxgrpc.v1.DetokenizeResponse> getDetokenizeMethod() {
    io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.DetokenizeRequest, io.github.mlxgrpc.v1.DetokenizeResponse> getDetokenizeMethod;
    if ((getDetokenizeMethod = TokenizerServiceGrpc.getDetokenizeMethod) == null) {
      synchronized (TokenizerServiceGrpc.class) {
        if ((getDetokenizeMethod = TokenizerServiceGrpc.getDetokenizeMethod) == null) {
          TokenizerServiceGrpc.getDetokenizeMethod = getDetokenizeMethod =
              io.grpc.MethodDescriptor.<io.github.mlxgrpc.v1.DetokenizeRequest, io.github.mlxgrpc.v1.DetokenizeResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "Detokenize"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.DetokenizeRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.DetokenizeResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenizerServiceMethodDescriptorSupplier("Detokenize"))
              .build();
        }
      }
    }
    return getDetokenizeMethod;
  }

  private static volatile io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.CountTokensRequest,
      io.github.mlxgrpc.v1.CountTokensResponse> getCountTokensMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CountTokens",
      requestType = io.github.mlxgrpc.v1.CountTokensRequest.class,
      responseType = io.github.mlxgrpc.v1.CountTokensResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.CountTokensRequest,
      io.github.mlxgrpc.v1.CountTokensResponse> getCountTokensMethod() {
    io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.CountTokensRequest, io.github.mlxgrpc.v1.CountTokensResponse> getCountTokensMethod;
    if ((getCountTokensMethod = TokenizerServiceGrpc.getCountTokensMethod) == null) {
      synchronized (TokenizerServiceGrpc.class) {
        if ((getCountTokensMethod = TokenizerServiceGrpc.getCountTokensMethod) == null) {
          TokenizerServiceGrpc.getCountTokensMethod = getCountTokensMethod =
              io.grpc.MethodDescriptor.<io.github.mlxgrpc.v1.CountTokensRequest, io.github.mlxgrpc.v1.CountTokensResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CountTokens"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.CountTokensRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.CountTokensResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenizerServiceMethodDescriptorSupplier("CountTokens"))
              .build();
        }
      }
    }
    return getCountTokensMethod;
  }

  private static volatile io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.RenderChatRequest,
      io.github.mlxgrpc.v1.RenderChatResponse> getRenderChatMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "RenderChat",
      requestType = io.github.mlxgrpc.v1.RenderChatRequest.class,
      responseType = io.github.mlxgrpc.v1.RenderChatResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.RenderChatRequest,
      io.github.mlxgrpc.v1.RenderChatResponse> getRenderChatMethod() {
    io.grpc.MethodDescriptor<io.github.mlxgrpc.v1.RenderChatRequest, io.github.mlxgrpc.v1.RenderChatResponse> getRenderChatMethod;
    if ((getRenderChatMethod = TokenizerServiceGrpc.getRenderChatMethod) == null) {
      synchronized (TokenizerServiceGrpc.class) {
        if ((getRenderChatMethod = TokenizerServiceGrpc.getRenderChatMethod) == null) {
          TokenizerServiceGrpc.getRenderChatMethod = getRenderChatMethod =
              io.grpc.MethodDescriptor.<io.github.mlxgrpc.v1.RenderChatRequest, io.github.mlxgrpc.v1.RenderChatResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "RenderChat"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.RenderChatRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.github.mlxgrpc.v1.RenderChatResponse.getDefaultInstance()))
              .setSchemaDescriptor(new TokenizerServiceMethodDescriptorSupplier("RenderChat"))
              .build();
        }
      }
    }
    return getRenderChatMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static TokenizerServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceStub>() {
        @java.lang.Override
        public TokenizerServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenizerServiceStub(channel, callOptions);
        }
      };
    return TokenizerServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static TokenizerServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceBlockingV2Stub>() {
        @java.lang.Override
        public TokenizerServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenizerServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return TokenizerServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static TokenizerServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceBlockingStub>() {
        @java.lang.Override
        public TokenizerServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenizerServiceBlockingStub(channel, callOptions);
        }
      };
    return TokenizerServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static TokenizerServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<TokenizerServiceFutureStub>() {
        @java.lang.Override
        public TokenizerServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new TokenizerServiceFutureStub(channel, callOptions);
        }
      };
    return TokenizerServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Turns text into a model's tokens and back, with the tokenizer and the chat template that generation uses.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Turns text or a conversation into token ids.
     * </pre>
     */
    default void tokenize(io.github.mlxgrpc.v1.TokenizeRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.TokenizeResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getTokenizeMethod(), responseObserver);
    }

    /**
     * <pre>
     * Turns token ids into text.
     * </pre>
     */
    default void detokenize(io.github.mlxgrpc.v1.DetokenizeRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.DetokenizeResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getDetokenizeMethod(), responseObserver);
    }

    /**
     * <pre>
     * Counts the tokens of a text or a conversation, as generation would.
     * </pre>
     */
    default void countTokens(io.github.mlxgrpc.v1.CountTokensRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.CountTokensResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCountTokensMethod(), responseObserver);
    }

    /**
     * <pre>
     * Renders a conversation with the model's chat template.
     * </pre>
     */
    default void renderChat(io.github.mlxgrpc.v1.RenderChatRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.RenderChatResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getRenderChatMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service TokenizerService.
   * <pre>
   * Turns text into a model's tokens and back, with the tokenizer and the chat template that generation uses.
   * </pre>
   */
  public static abstract class TokenizerServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return TokenizerServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service TokenizerService.
   * <pre>
   * Turns text into a model's tokens and back, with the tokenizer and the chat template that generation uses.
   * </pre>
   */
  public static final class TokenizerServiceStub
      extends io.grpc.stub.AbstractAsyncStub<TokenizerServiceStub> {
    private TokenizerServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenizerServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenizerServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Turns text or a conversation into token ids.
     * </pre>
     */
    public void tokenize(io.github.mlxgrpc.v1.TokenizeRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.TokenizeResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getTokenizeMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Turns token ids into text.
     * </pre>
     */
    public void detokenize(io.github.mlxgrpc.v1.DetokenizeRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.DetokenizeResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getDetokenizeMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Counts the tokens of a text or a conversation, as generation would.
     * </pre>
     */
    public void countTokens(io.github.mlxgrpc.v1.CountTokensRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.CountTokensResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCountTokensMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Renders a conversation with the model's chat template.
     * </pre>
     */
    public void renderChat(io.github.mlxgrpc.v1.RenderChatRequest request,
        io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.RenderChatResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getRenderChatMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service TokenizerService.
   * <pre>
   * Turns text into a model's tokens and back, with the tokenizer and the chat template that generation uses.
   * </pre>
   */
  public static final class TokenizerServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<TokenizerServiceBlockingV2Stub> {
    private TokenizerServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenizerServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenizerServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Turns text or a conversation into token ids.
     * </pre>
     */
    public io.github.mlxgrpc.v1.TokenizeResponse tokenize(io.github.mlxgrpc.v1.TokenizeRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getTokenizeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Turns token ids into text.
     * </pre>
     */
    public io.github.mlxgrpc.v1.DetokenizeResponse detokenize(io.github.mlxgrpc.v1.DetokenizeRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getDetokenizeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Counts the tokens of a text or a conversation, as generation would.
     * </pre>
     */
    public io.github.mlxgrpc.v1.CountTokensResponse countTokens(io.github.mlxgrpc.v1.CountTokensRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCountTokensMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Renders a conversation with the model's chat template.
     * </pre>
     */
    public io.github.mlxgrpc.v1.RenderChatResponse renderChat(io.github.mlxgrpc.v1.RenderChatRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getRenderChatMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service TokenizerService.
   * <pre>
   * Turns text into a model's tokens and back, with the tokenizer and the chat template that generation uses.
   * </pre>
   */
  public static final class TokenizerServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<TokenizerServiceBlockingStub> {
    private TokenizerServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenizerServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenizerServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Turns text or a conversation into token ids.
     * </pre>
     */
    public io.github.mlxgrpc.v1.TokenizeResponse tokenize(io.github.mlxgrpc.v1.TokenizeRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getTokenizeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Turns token ids into text.
     * </pre>
     */
    public io.github.mlxgrpc.v1.DetokenizeResponse detokenize(io.github.mlxgrpc.v1.DetokenizeRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getDetokenizeMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Counts the tokens of a text or a conversation, as generation would.
     * </pre>
     */
    public io.github.mlxgrpc.v1.CountTokensResponse countTokens(io.github.mlxgrpc.v1.CountTokensRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCountTokensMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Renders a conversation with the model's chat template.
     * </pre>
     */
    public io.github.mlxgrpc.v1.RenderChatResponse renderChat(io.github.mlxgrpc.v1.RenderChatRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getRenderChatMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service TokenizerService.
   * <pre>
   * Turns text into a model's tokens and back, with the tokenizer and the chat template that generation uses.
   * </pre>
   */
  public static final class TokenizerServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<TokenizerServiceFutureStub> {
    private TokenizerServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected TokenizerServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new TokenizerServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Turns text or a conversation into token ids.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<io.github.mlxgrpc.v1.TokenizeResponse> tokenize(
        io.github.mlxgrpc.v1.TokenizeRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getTokenizeMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Turns token ids into text.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<io.github.mlxgrpc.v1.DetokenizeResponse> detokenize(
        io.github.mlxgrpc.v1.DetokenizeRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getDetokenizeMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Counts the tokens of a text or a conversation, as generation would.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<io.github.mlxgrpc.v1.CountTokensResponse> countTokens(
        io.github.mlxgrpc.v1.CountTokensRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCountTokensMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Renders a conversation with the model's chat template.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<io.github.mlxgrpc.v1.RenderChatResponse> renderChat(
        io.github.mlxgrpc.v1.RenderChatRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getRenderChatMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_TOKENIZE = 0;
  private static final int METHODID_DETOKENIZE = 1;
  private static final int METHODID_COUNT_TOKENS = 2;
  private static final int METHODID_RENDER_CHAT = 3;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final AsyncService serviceImpl;
    private final int methodId;

    MethodHandlers(AsyncService serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_TOKENIZE:
          serviceImpl.tokenize((io.github.mlxgrpc.v1.TokenizeRequest) request,
              (io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.TokenizeResponse>) responseObserver);
          break;
        case METHODID_DETOKENIZE:
          serviceImpl.detokenize((io.github.mlxgrpc.v1.DetokenizeRequest) request,
              (io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.DetokenizeResponse>) responseObserver);
          break;
        case METHODID_COUNT_TOKENS:
          serviceImpl.countTokens((io.github.mlxgrpc.v1.CountTokensRequest) request,
              (io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.CountTokensResponse>) responseObserver);
          break;
        case METHODID_RENDER_CHAT:
          serviceImpl.renderChat((io.github.mlxgrpc.v1.RenderChatRequest) request,
              (io.grpc.stub.StreamObserver<io.github.mlxgrpc.v1.RenderChatResponse>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getTokenizeMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              io.github.mlxgrpc.v1.TokenizeRequest,
              io.github.mlxgrpc.v1.TokenizeResponse>(
                service, METHODID_TOKENIZE)))
        .addMethod(
          getDetokenizeMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              io.github.mlxgrpc.v1.DetokenizeRequest,
              io.github.mlxgrpc.v1.DetokenizeResponse>(
                service, METHODID_DETOKENIZE)))
        .addMethod(
          getCountTokensMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              io.github.mlxgrpc.v1.CountTokensRequest,
              io.github.mlxgrpc.v1.CountTokensResponse>(
                service, METHODID_COUNT_TOKENS)))
        .addMethod(
          getRenderChatMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              io.github.mlxgrpc.v1.RenderChatRequest,
              io.github.mlxgrpc.v1.RenderChatResponse>(
                service, METHODID_RENDER_CHAT)))
        .build();
  }

  private static abstract class TokenizerServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    TokenizerServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return io.github.mlxgrpc.v1.TokenizerServiceOuterClass.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("TokenizerService");
    }
  }

  private static final class TokenizerServiceFileDescriptorSupplier
      extends TokenizerServiceBaseDescriptorSupplier {
    TokenizerServiceFileDescriptorSupplier() {}
  }

  private static final class TokenizerServiceMethodDescriptorSupplier
      extends TokenizerServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    TokenizerServiceMethodDescriptorSupplier(java.lang.String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (TokenizerServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new TokenizerServiceFileDescriptorSupplier())
              .addMethod(getTokenizeMethod())
              .addMethod(getDetokenizeMethod())
              .addMethod(getCountTokensMethod())
              .addMethod(getRenderChatMethod())
              .build();
        }
      }
    }
    return result;
  }
}
