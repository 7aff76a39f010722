/** JSON as it goes over the wire. */

/** One newline after the document, as docker has sent since 0.8 (W-48). */
export const jsonBody = (value: unknown): string => `${JSON.stringify(value)}\n`;

export const errorBody = (message: string): string => jsonBody({ message });

const { rawJSON } = JSON as unknown as { rawJSON(text: string): object };

/** A whole number beyond 2^53 that keeps all its digits in JSON. */
export const exactNumber = (value: bigint): object => rawJSON(value.toString());
