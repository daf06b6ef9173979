/** Starts and commands `python -m mlx_grpc.testing`, as tests/conformance/README.md describes it. */

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { once } from "node:events";

const PATIENCE_MS = 30_000;

/** The helper program, running. */
export class Helper {
  readonly #control: string;
  readonly #process: ChildProcess | undefined;

  private constructor(control: string, process?: ChildProcess) {
    this.#control = control;
    this.#process = process;
  }

  /** Connects to the program that MLX_GRPC_TEST_CONTROL names, or starts one of our own. */
  static async start(): Promise<Helper> {
    const running = process.env["MLX_GRPC_TEST_CONTROL"];
    if (running) return new Helper(running);
    const child = spawn(python(), ["-m", "mlx_grpc.testing"], { cwd: root(), stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface(child.stdout);
    const [line] = (await Promise.race([
      once(lines, "line"),
      once(child, "exit").then(() => Promise.reject(new Error("python -m mlx_grpc.testing did not start"))),
    ])) as [string];
    return new Helper((JSON.parse(line) as { control: string }).control, child);
  }

  /** Asks for something. */
  async get<T>(name: string): Promise<T> {
    return this.#take(await fetch(`${this.#control}/${name}`, { signal: AbortSignal.timeout(PATIENCE_MS) }));
  }

  /** Gives a command. */
  async post<T>(name: string, body: unknown = {}): Promise<T> {
    const init = { method: "POST", body: JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE_MS) };
    return this.#take(await fetch(`${this.#control}/${name}`, init));
  }

  /** Ends the program, where it is our own: it ends when its input closes. */
  async end(): Promise<void> {
    if (!this.#process) return;
    const exit = once(this.#process, "exit");
    this.#process.stdin?.end();
    await exit;
  }

  async #take<T>(response: Response): Promise<T> {
    if (!response.ok) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }
}

/** The repository's root. */
export function root(): string {
  let folder = process.cwd();
  while (!existsSync(join(folder, "tests", "conformance"))) {
    if (folder === dirname(folder)) throw new Error("run this inside the repository: no tests/conformance above");
    folder = dirname(folder);
  }
  return folder;
}

/** The Python that has mlx_grpc: MLX_GRPC_PYTHON, or the repository's own. */
export function python(): string {
  return process.env["MLX_GRPC_PYTHON"] ?? join(root(), ".venv", "bin", "python");
}
