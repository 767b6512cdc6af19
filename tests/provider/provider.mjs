// A real OpenID provider on loopback, for tests: node provider.mjs FOLDER, where FOLDER holds node_modules. Prints its issuer, and
// ends with its standard input. Whoever says a name is that person; the groups are what stands behind a "+": anna+soc+staff.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const { default: Provider } = await import(pathToFileURL(join(process.argv[2], "node_modules/oidc-provider/lib/index.js")).href);

const server = createServer();
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
// Another name than the service has: so it is another site to a browser, as a provider is in life.
const issuer = `http://localhost:${server.address().port}`;

const client = { redirect_uris: ["http://127.0.0.1/login/oidc/back"], grant_types: ["authorization_code"], response_types: ["code"] };
const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: "confidential", client_secret: "very-secret" },
    { ...client, client_id: "public", token_endpoint_auth_method: "none" },
  ],
  claims: { openid: ["sub", "preferred_username", "groups"], email: ["email"], profile: [] },
  conformIdTokenClaims: false,
  findAccount: (_context, sub) => {
    const [name, ...groups] = sub.split("+");
    return { accountId: sub, claims: () => ({ sub, preferred_username: name, groups }) };
  },
  pkce: { required: () => true },
  cookies: { keys: ["for tests"] },
});
provider.Client.prototype.redirectUriAllowed = (uri) => /^https?:\/\/127\.0\.0\.1:\d+\/login\/oidc\/back$/.test(uri);
server.on("request", provider.callback());
process.stdin.on("end", () => process.exit(0)).resume();
console.log(issuer);
