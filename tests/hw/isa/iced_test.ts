/** The decoder against iced-x86, which reads a file of its own when it is imported. */
const granted = Deno.permissions.querySync({ name: "read" }).state === "granted";
if (granted) await import("./iced_cases.ts");
else Deno.test({ name: "the decoder against iced-x86 (ignored: needs --allow-read)", ignore: true, fn() {} });
