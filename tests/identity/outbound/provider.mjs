// An authorization server for tests: oidc-provider, with token exchange (RFC 8693) as a grant.
// argv: the folder of node_modules, and settings as JSON:
//   port, clients, subject_keys (key set of callers' tokens), resources ({url: {scope, seconds}},
//   "*" for all others),
//   registration (whether anybody may register).
// Prints its URL. GET /test/calls says how often each grant was asked for.

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import http from 'node:http';

const [, , modules, text] = process.argv;
const settings = JSON.parse(text);
const require = createRequire(pathToFileURL(`${modules}/`));
const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
const { default: Provider, errors } = await load('oidc-provider');
const jose = await load('jose');

const calls = {};
let provider;
const server = http.createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (pathname === '/test/calls') {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(calls));
  } else if (pathname.startsWith('/interaction/')) {
    interact(request, response).catch((error) => response.writeHead(500).end(String(error)));
  } else {
    provider.callback()(request, response);
  }
});

// A person who signs in as `ada` and consents to everything.
async function interact(request, response) {
  const details = await provider.interactionDetails(request, response);
  if (details.prompt.name === 'login') {
    await provider.interactionFinished(request, response, { login: { accountId: 'ada' } });
    return;
  }
  const { accountId } = details.session;
  const clientId = details.params.client_id;
  const grant = details.grantId
    ? await provider.Grant.find(details.grantId)
    : new provider.Grant({ accountId, clientId });
  const { missingOIDCScope, missingResourceScopes } = details.prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  const grantId = await grant.save();
  await provider.interactionFinished(
    request, response, { consent: { grantId } }, { mergeWithLastSubmission: true },
  );
}

function resourceServer(resource) {
  const found = settings.resources[resource] ?? settings.resources['*'];
  if (!found) throw new errors.InvalidTarget('unknown resource');
  return {
    audience: resource,
    scope: found.scope,
    accessTokenTTL: found.seconds,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: 'RS256' } },
  };
}

await new Promise((done) => server.listen(settings.port ?? 0, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const key = await jose.generateKeyPair('RS256', { extractable: true });
const kid = crypto.randomUUID();

provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: { keys: [{ ...(await jose.exportJWK(key.privateKey)), alg: 'RS256', use: 'sig', kid }] },
  scopes: ['openid', 'offline_access', ...new Set(Object.values(settings.resources).flatMap((each) => each.scope.split(' ')))],
  pkce: { required: () => true },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: async (_, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
  issueRefreshToken: async (_, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  clientBasedCORS: () => false,
  extraTokenClaims: async (ctx) => {
    const actor = ctx.oidc.params.actor_token;
    return actor ? { act: { sub: jose.decodeJwt(actor).sub } } : undefined;
  },
  enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'ES256', 'EdDSA', 'Ed25519'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    registration: { enabled: settings.registration ?? false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: async (_, resource) => resourceServer(resource),
      useGrantedResource: async () => true,
    },
  },
});

const subjectKeys = jose.createLocalJWKSet(settings.subject_keys ?? { keys: [] });

provider.registerGrantType(
  'urn:ietf:params:oauth:grant-type:token-exchange',
  async (ctx) => {
    const { params, client } = ctx.oidc;
    let subject;
    try {
      ({ payload: { sub: subject } } = await jose.jwtVerify(params.subject_token, subjectKeys));
    } catch (error) {
      throw new errors.InvalidGrant(error.code);
    }
    const token = new provider.AccessToken({ accountId: subject, client, scope: params.scope });
    const resource = [params.resource].flat()[0];
    token.resourceServer = new provider.ResourceServer(resource, resourceServer(resource));
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer',
      expires_in: token.expiration,
      scope: token.scope,
    };
  },
  [
    'audience', 'resource', 'scope', 'subject_token', 'subject_token_type', 'actor_token',
    'actor_token_type', 'requested_token_type',
  ],
);

provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/token') {
    const grant = ctx.oidc?.params?.grant_type ?? 'unreadable';
    calls[grant] = (calls[grant] ?? 0) + 1;
  }
});

console.log(issuer);
