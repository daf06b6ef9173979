/** What a vector says; tests/conformance/README.md tells what it means. */

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export type Facts = Record<string, Json>;

export interface Vector {
  name: string;
  needs: string[];
  server: Facts;
  client: { token?: string; tls?: boolean; mutual_tls?: boolean; retry?: boolean };
  steps: Step[];
}

export interface CallStep {
  call: string;
  request?: Facts;
  deadline_ms?: number;
  name?: string;
  background?: boolean;
  cancel_after_deltas?: number;
  read_delay?: { every: number; ms: number };
  expect?: Facts;
}

export type Step =
  | CallStep
  | { control: string; body?: Facts }
  | { wait: string; at_least?: number; at_most?: number }
  | { cancel: string }
  | { join: string }
  | { state: Record<string, number | { at_least?: number; at_most?: number }> };
