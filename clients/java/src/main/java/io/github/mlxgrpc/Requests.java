package io.github.mlxgrpc;

import io.github.mlxgrpc.v1.ContentPart;
import io.github.mlxgrpc.v1.GenerateRequest;
import io.github.mlxgrpc.v1.Message;
import io.github.mlxgrpc.v1.Role;

/** Short words for the usual messages; made to be imported statically. */
public final class Requests {
    private Requests() {}

    /** A request to continue this text; {@code toBuilder()} sets more. */
    public static GenerateRequest prompt(String text) {
        return GenerateRequest.newBuilder().setPrompt(text).build();
    }

    /** Instructions that hold for the whole conversation. */
    public static Message system(String text) {
        return message(Role.ROLE_SYSTEM, text);
    }

    /** A turn of the person. */
    public static Message user(String text) {
        return message(Role.ROLE_USER, text);
    }

    /** A turn of the model. */
    public static Message assistant(String text) {
        return message(Role.ROLE_ASSISTANT, text);
    }

    private static Message message(Role role, String text) {
        return Message.newBuilder()
                .setRole(role)
                .addContent(ContentPart.newBuilder().setText(text))
                .build();
    }
}
